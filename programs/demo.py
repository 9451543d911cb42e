"""See guidance work: start a guided server, ask about a picture, and compare the base's answer with the guided one.

    python -m programs.demo [--base B --expert E --amateur A] [--image FILE] [--question TEXT] [--alpha 0.5]

Without models it makes a tiny random triple: then the words are noise, and what is shown is that three models answer
one OpenAI request, and how long that takes. On a machine without a GPU it runs on the CPU.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from programs.random_triple import make_triple

console = Console()

# What the start-up log says, in order, and what a person wants to know meanwhile.
STAGES = (
    ("is guided by", "checked that the three models fit"),
    ("Init torch distributed begin", "imported SGLang in the scheduler"),
    ("memory of rank 0", "loaded three models and planned their memory"),
    ("Uvicorn running on", "listening"),
    ("fired up and ready", "warmed up"),
)
START_WITHIN_S = 900


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="proxythinker-demo-") as scratch, guided_server(args) as url:
        image = args.image or draw_picture(Path(scratch) / "picture.png")
        console.print(f"Asking about [bold]{image}[/bold]: {args.question}")
        compare(url, image, args.question, args.alpha)
    console.print("Server ended.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_models(parser)
    parser.add_argument("--image", type=Path, help="a picture of yours")
    parser.add_argument("--question", default="How many shapes are in the picture, and which is the largest?")
    parser.add_argument("--alpha", type=float, default=0.5)
    args = parser.parse_args()
    check_models(parser, args)
    return args


def add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", help="the large untuned model; with --expert and --amateur")
    parser.add_argument("--expert", help="the small RL-tuned model")
    parser.add_argument("--amateur", help="the small model before RL")


def check_models(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    models = (args.base, args.expert, args.amateur)
    if any(models) and not all(models):
        parser.error("give all of --base, --expert and --amateur, or none of them")


@contextlib.contextmanager
def guided_server(args: argparse.Namespace) -> Iterator[str]:
    """The address of a server of --base, --expert and --amateur, or of a tiny random triple; ended with the block."""
    with tempfile.TemporaryDirectory(prefix="proxythinker-server-") as scratch:
        folder, tiny = Path(scratch), args.base is None
        if tiny:
            console.print("Making a tiny random triple. [bold]Its words are noise[/bold]; the machinery is real.")
            triple = make_triple(folder / "triple")
            args.base, args.expert, args.amateur = triple.base, triple.expert, triple.amateur
        with serving(args, tiny, folder / "server.log") as url:
            yield url


def draw_picture(path: Path) -> Path:
    picture = Image.new("RGB", (224, 168), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((20, 30, 110, 120), fill="crimson")
    draw.rectangle((130, 20, 200, 70), fill="royalblue")
    draw.polygon([(165, 90), (130, 150), (205, 150)], fill="seagreen")
    picture.save(path)
    return path


@contextlib.contextmanager
def serving(args: argparse.Namespace, tiny: bool, log: Path) -> Iterator[str]:
    """A guided server on loopback, with its start shown step by step; ended with the block."""
    port = free_port()
    command = [
        sys.executable, "-m", "sglang.launch_server", "--plugin", "proxythinker", "--host", "127.0.0.1",
        "--port", str(port), "--model-path", str(args.base), "--proxy-expert-path", str(args.expert),
        "--proxy-amateur-path", str(args.amateur), "--proxy-alpha", str(args.alpha),
    ]  # fmt: skip
    if tiny:
        # On a GPU, SGLang's kernels take 16 bits, and heads of 32 need other attention than the default.
        flags = "--dtype float16 --attention-backend triton --mm-attention-backend sdpa --sampling-backend pytorch"
        command += (flags if torch.cuda.is_available() else "--dtype float32").split()
        command += ["--max-total-tokens", "8192"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_until_ready(server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_until_ready(server: subprocess.Popen, log: Path) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Starting the server: importing SGLang", total=None)
        reached, deadline = 0, time.monotonic() + START_WITHIN_S
        while reached < len(STAGES):
            text = log.read_text(errors="replace")
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The server did not start. The end of its log:\n{text[-3000:]}")
            while reached < len(STAGES) and STAGES[reached][0] in text:
                progress.update(task, description=f"Starting the server: {STAGES[reached][1]}")
                reached += 1
            time.sleep(0.2)


def compare(url: str, image: Path, question: str, alpha: float) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    picture = "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
    for title, strength in (("base alone (alpha 0)", 0.0), (f"guided (alpha {alpha:g})", alpha)):
        started = time.perf_counter()
        answer = client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": content}], temperature=0, max_tokens=48,
            extra_body={"custom_params": {"proxy_alpha": strength}},
        )  # fmt: skip
        seconds, tokens = time.perf_counter() - started, answer.usage.completion_tokens
        text = answer.choices[0].message.content
        printable = "".join(character if character.isprintable() else "·" for character in text)
        console.print(Panel(printable, title=title, subtitle=f"{seconds:.2f} s, {tokens} tokens", highlight=False))


def free_port() -> int:
    """A port below the range from which outgoing connections take theirs, free when it was looked at."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


if __name__ == "__main__":
    main()
