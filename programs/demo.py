"""See guidance work: a base model that answers wrongly reasons to the right answer when a small RL-tuned one guides it.

    python -m programs.demo [--alpha 0.5] [--seconds 60]
    python -m programs.demo --base B --expert E --amateur A --image FILE --question TEXT

Without models it serves the tiny trained family that comes with the package, shows problems that it was never trained
on, and keeps the score of base against guided for a minute. With models of yours it asks them about a picture of yours.
On a machine without a GPU it runs on the CPU.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import openai
import torch
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.tiny_family.grading import is_right
from benchmarks.tiny_family.problems import KINDS, Problem, problems
from benchmarks.tiny_family.wordings import TEST
from sgl_proxythinker import tiny_family

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
ANSWER_TOKENS = 192
AT_ONCE = 16  # requests
SCORED_AT_MOST = 990  # problems: the test set without those that are shown


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="proxythinker-demo-") as scratch:
        ours = args.base is None
        if ours:
            args.base, args.expert, args.amateur = tiny_family.BASE, tiny_family.EXPERT, tiny_family.AMATEUR
        with serving(args, ours, Path(scratch) / "server.log") as url:
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
            if ours:
                show_problems(client, args.alpha, args.pictures)
                keep_score(client, args.alpha, args.seconds)
            else:
                console.print(f"Asking about [bold]{args.image}[/bold]: {args.question}")
                for title, alpha in (("base alone (alpha 0)", 0.0), (f"guided (alpha {args.alpha:g})", args.alpha)):
                    show(title, ask(client, Image.open(args.image), args.question, alpha))
        console.print("Server ended.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="the large untuned model; with --expert, --amateur, --image and --question")
    parser.add_argument("--expert", help="the small RL-tuned model")
    parser.add_argument("--amateur", help="the small model before RL")
    parser.add_argument("--image", type=Path, help="a picture of yours")
    parser.add_argument("--question", help="about your picture")
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=60, help="how long to keep score (%(default)s)")
    parser.add_argument("--pictures", type=Path, default=Path("results/demo"), help="where to draw (%(default)s)")
    args = parser.parse_args()
    yours = (args.base, args.expert, args.amateur, args.image, args.question)
    if any(yours) and not all(yours):
        parser.error(
            "give all of --base, --expert, --amateur, --image and --question, or none of them: the models that come "
            "with the package know their own pictures only"
        )
    return args


@contextlib.contextmanager
def serving(args: argparse.Namespace, ours: bool, log: Path) -> Iterator[str]:
    """A guided server on loopback, with its start shown step by step; ended with the block."""
    port = free_port()
    command = [
        sys.executable, "-m", "sglang.launch_server", "--plugin", "proxythinker", "--host", "127.0.0.1",
        "--port", str(port), "--model-path", str(args.base), "--proxy-expert-path", str(args.expert),
        "--proxy-amateur-path", str(args.amateur), "--proxy-alpha", str(args.alpha),
    ]  # fmt: skip
    if ours:
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


@dataclass(frozen=True)
class Answer:
    text: str
    tokens: int
    seconds: float


def ask(client: openai.OpenAI, picture: Image.Image, question: str, alpha: float) -> Answer:
    """One greedy answer about one picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    started = time.perf_counter()
    answer = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": content}], temperature=0, max_tokens=ANSWER_TOKENS,
        extra_body={"custom_params": {"proxy_alpha": alpha}},
    )  # fmt: skip
    seconds = time.perf_counter() - started
    return Answer(answer.choices[0].message.content, answer.usage.completion_tokens, seconds)


def show(title: str, answer: Answer, right: bool | None = None) -> None:
    printable = "".join(c if c.isprintable() or c == "\n" else "·" for c in answer.text)
    style = {None: "none", True: "green", False: "red"}[right]
    verdict = {None: "", True: "right, ", False: "wrong, "}[right]
    subtitle = f"{verdict}{answer.tokens} tokens, {answer.seconds:.2f} s"
    console.print(Panel(escape(printable), title=title, subtitle=subtitle, border_style=style, highlight=False))


def show_problems(client: openai.OpenAI, alpha: float, folder: Path) -> None:
    """One held-out problem of each kind: picture, question, the base's answer, the guided one, and the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    for problem in problems(TEST, len(KINDS), start=len(KINDS)):
        file = folder / f"{problem.kind}.png"
        picture = problem.picture()
        picture.save(file)
        console.rule(f"{file}")
        console.print(f"[bold]{problem.question}[/bold]")
        for title, strength in (("base alone (alpha 0)", 0.0), (f"guided (alpha {alpha:g})", alpha)):
            answer = ask(client, picture, problem.question, strength)
            show(title, answer, is_right(answer.text, problem.answer))
        console.print(f"Truth: [bold]{problem.answer}[/bold]")


def keep_score(client: openai.OpenAI, alpha: float, seconds: float) -> None:
    """Base against guided on held-out problems, for about `seconds`."""
    deadline, strengths = time.monotonic() + seconds, (0.0, alpha)
    right, asked = [0, 0], 0

    def answer_both(problem: Problem) -> list[bool] | None:
        if time.monotonic() > deadline:
            return None
        picture = problem.picture()
        texts = [ask(client, picture, problem.question, strength).text for strength in strengths]
        return [is_right(text, problem.answer) for text in texts]

    console.rule(f"The score on held-out problems, for {seconds:g} s")
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with ThreadPoolExecutor(AT_ONCE) as pool, Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None)
        for both in pool.map(answer_both, problems(TEST, SCORED_AT_MOST, start=2 * len(KINDS))):
            if both is None:
                continue
            asked, right = asked + 1, [before + now for before, now in zip(right, both, strict=True)]
            shares = [f"{count}/{asked} ({100 * count / asked:.0f} %)" for count in right]
            progress.update(task, description=f"base {shares[0]}    guided at {alpha:g}: [bold]{shares[1]}[/bold]")


def free_port() -> int:
    """A port below the range from which outgoing connections take theirs, free when it was looked at."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


if __name__ == "__main__":
    main()
