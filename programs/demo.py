"""See guidance work: a base model that answers wrongly reasons to the right answer when a small RL-tuned one guides it.

    proxythinker demo [--alpha 0.5] [--seconds 60]
    proxythinker demo --base B --expert E --amateur A --image FILE --question TEXT

Without models it serves the tiny trained family that comes with the package, shows problems that it was never trained
on, and keeps the score of base against guided for a minute; then that of its two experts, alone and at once, for half a
minute. With models of yours it asks them about a picture of yours.
On a machine without a GPU it runs on the CPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from PIL import Image
from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from sgl_proxythinker.pictures.program import see
from sgl_proxythinker.programs.pictures import data_url
from sgl_proxythinker.programs.serving import Models, serving, trained_family
from sgl_proxythinker.programs.terminal import printable
from sgl_proxythinker.tiny_family import SPECIALIST
from sgl_proxythinker.tiny_family.grading import is_right
from sgl_proxythinker.tiny_family.problems import KINDS, Problem, problems
from sgl_proxythinker.tiny_family.settings import ANSWER_TOKENS
from sgl_proxythinker.tiny_family.wordings import TEST

console = Console(highlight=False)

YOUR_ANSWER_TOKENS = 1024  # of models that were not trained for this project
AT_ONCE = 16  # requests
SHOWN = range(len(KINDS), 2 * len(KINDS))  # held-out problems of level 2, one of each kind
SCORED = range(2 * len(KINDS), 1000)  # the other ones, as far as the time reaches
SECOND = SPECIALIST.name  # an expert for two of the five kinds
ALPHA_OF_EACH = 0.25  # where there are two: at 0.5 the first alone has nearly all right


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    models = Models(args.base, args.expert, args.amateur) if args.base else trained_family(both_experts=True)
    with (
        tempfile.TemporaryDirectory(prefix="proxythinker-demo-") as scratch,
        serving(models, args.alpha, Path(scratch) / "server.log", console) as url,
    ):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        if args.base:
            console.print(f"Asking about [bold]{args.image}[/bold]: {args.question}")
            picture = see(args.image)
            for alpha in (0.0, args.alpha):
                show(alpha, ask(client, picture, args.question, constant(alpha), YOUR_ANSWER_TOKENS))
        else:
            show_problems(client, args.alpha, args.pictures)
            console.rule(f"The score on held-out problems, for {args.seconds:g} s")
            keep_score(client, {"base": constant(0.0), f"guided at {args.alpha:g}": constant(args.alpha)}, args.seconds)
            console.rule(f"Two experts at once, the second one for paths and odd rows, for {args.seconds / 2:g} s")
            keep_score(client, two_experts(), args.seconds / 2)
    console.print("Server ended.")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="proxythinker demo", description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="the large untuned model; with --expert, --amateur, --image and --question")
    parser.add_argument("--expert", help="the small RL-tuned model")
    parser.add_argument("--amateur", help="the small model before RL")
    parser.add_argument("--image", type=Path, help="a picture of yours")
    parser.add_argument("--question", help="about your picture")
    parser.add_argument("--alpha", type=float, default=0.5, help="strength of guidance (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="how long to keep score (%(default)s)")
    parser.add_argument("--pictures", type=Path, default=Path("results/demo"), help="where to draw (%(default)s)")
    args = parser.parse_args(arguments)
    yours = (args.base, args.expert, args.amateur, args.image, args.question)
    if any(yours) and not all(yours):
        parser.error(
            "give all of --base, --expert, --amateur, --image and --question, or none of them: the models that come "
            "with the package know their own pictures only"
        )
    if args.image and not args.image.is_file():
        parser.error(f"there is no picture {args.image}")
    return args


@dataclass(frozen=True)
class Answer:
    text: str
    tokens: int
    seconds: float


# `custom_params` of a request
Guidance = Mapping[str, Any]


def constant(alpha: float) -> Guidance:
    return {"proxy_alpha": alpha}


def two_experts() -> dict[str, Guidance]:
    """The base, with each expert, and with both at once: their differences to one amateur add up."""
    each = {name: {"proxy_expert": name, **constant(ALPHA_OF_EACH)} for name in ("expert", SECOND)}
    both = {"proxy_experts": dict.fromkeys(each, ALPHA_OF_EACH)}
    alone = {f"{name} at {ALPHA_OF_EACH:g}": guidance for name, guidance in each.items()}
    return {"base": constant(0.0), **alone, "both": both}


def ask(client: openai.OpenAI, picture: Image.Image, question: str, guidance: Guidance, tokens: int) -> Answer:
    """One greedy answer about one picture, of at most `tokens` tokens."""
    content: Any = [{"type": "image_url", "image_url": {"url": data_url(picture)}}, {"type": "text", "text": question}]
    started = time.perf_counter()
    answer = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": content}], temperature=0, max_tokens=tokens,
        extra_body={"custom_params": guidance},
    )  # fmt: skip
    seconds = time.perf_counter() - started
    assert answer.usage is not None, "SGLang counts tokens"
    return Answer(answer.choices[0].message.content or "", answer.usage.completion_tokens, seconds)


def show(alpha: float, answer: Answer, right: bool | None = None) -> None:
    """An answer in a frame; its colour and its last line say whether it is right, where that is known."""
    title = f"guided (alpha {alpha:g})" if alpha else "base alone (alpha 0)"
    style, verdict = {None: ("none", ""), True: ("green", "right, "), False: ("red", "wrong, ")}[right]
    subtitle = f"{verdict}{answer.tokens} tokens, {answer.seconds:.2f} s"
    console.print(Panel(printable(answer.text), title=title, subtitle=subtitle, border_style=style))


def show_problems(client: openai.OpenAI, alpha: float, folder: Path) -> None:
    """One held-out problem of each kind: picture, question, the base's answer, the guided one, and the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    for problem in problems(TEST, len(SHOWN), SHOWN.start):
        file, picture = folder / f"{problem.kind}.png", problem.picture()
        picture.save(file)
        console.rule(f"{file}")
        console.print(f"[bold]{problem.question}[/bold]")
        for strength in (0.0, alpha):
            answer = ask(client, picture, problem.question, constant(strength), ANSWER_TOKENS)
            show(strength, answer, is_right(answer.text, problem.answer))
        console.print(f"Truth: [bold]{problem.answer}[/bold]")


def keep_score(client: openai.OpenAI, sides: Mapping[str, Guidance], seconds: float) -> None:
    """Ways to guide, by what to call them, against each other on held-out problems, for about `seconds`."""
    deadline = time.monotonic() + seconds
    right, asked = [0] * len(sides), 0

    def answer_all(problem: Problem) -> list[bool] | None:
        if time.monotonic() > deadline:
            return None
        picture = problem.picture()
        answers = [ask(client, picture, problem.question, guidance, ANSWER_TOKENS) for guidance in sides.values()]
        return [is_right(answer.text, problem.answer) for answer in answers]

    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[score]}"), TimeElapsedColumn())
    with ThreadPoolExecutor(AT_ONCE) as pool, Progress(*columns, console=console) as progress:
        rows = [progress.add_task(side, total=None, score="") for side in sides]
        for verdicts in pool.map(answer_all, problems(TEST, len(SCORED), SCORED.start)):
            if verdicts is None:
                continue
            asked, right = asked + 1, [before + now for before, now in zip(right, verdicts, strict=True)]
            for row, count in zip(rows, right, strict=True):
                progress.update(row, score=f"[bold]{count}/{asked}[/bold] ({100 * count / asked:.0f} %)")


if __name__ == "__main__":
    main()
