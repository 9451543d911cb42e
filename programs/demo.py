"""See guidance work: start a guided server, ask about a picture, and compare the base's answer with the guided one.

    python -m programs.demo [--base B --expert E --amateur A] [--image FILE] [--question TEXT] [--alpha 0.5]

Without models it makes a tiny random triple: then the words are noise, and what is shown is that three models answer
one OpenAI request, and how long that takes. On a machine without a GPU it runs on the CPU.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
from pathlib import Path

import openai
from PIL import Image, ImageDraw
from rich.console import Console
from rich.panel import Panel

from programs.serving import Models, random_models, serving
from programs.terminal import printable

console = Console()


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="proxythinker-demo-") as scratch:
        folder = Path(scratch)
        if args.base is None:
            models = random_models(folder / "triple")
        else:
            models = Models(args.base, args.expert, args.amateur)
        image = args.image or draw_picture(folder / "picture.png")
        with serving(models, args.alpha, folder / "server.log", console) as url:
            console.print(f"Asking about [bold]{image}[/bold]: {args.question}")
            compare(url, image, args.question, args.alpha)
        console.print("Server ended.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="the large untuned model; with --expert and --amateur")
    parser.add_argument("--expert", help="the small RL-tuned model")
    parser.add_argument("--amateur", help="the small model before RL")
    parser.add_argument("--image", type=Path, help="a picture of yours")
    parser.add_argument("--question", default="How many shapes are in the picture, and which is the largest?")
    parser.add_argument("--alpha", type=float, default=0.5)
    args = parser.parse_args()
    models = (args.base, args.expert, args.amateur)
    if any(models) and not all(models):
        parser.error("give all of --base, --expert and --amateur, or none of them")
    return args


def draw_picture(path: Path) -> Path:
    picture = Image.new("RGB", (224, 168), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((20, 30, 110, 120), fill="crimson")
    draw.rectangle((130, 20, 200, 70), fill="royalblue")
    draw.polygon([(165, 90), (130, 150), (205, 150)], fill="seagreen")
    picture.save(path)
    return path


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
        console.print(Panel(printable(text), title=title, subtitle=f"{seconds:.2f} s, {tokens} tokens"))


if __name__ == "__main__":
    main()
