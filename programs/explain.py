"""See what the expert changed: one question at several alphas, every answer token by token, in one HTML page.

    python -m programs.explain --url http://127.0.0.1:30000 --image picture.png --question "How many?" --html out.html
    python -m programs.explain --base B --expert E --amateur A --image one.png --image two.png --question "Which?"

Good for finding out why guidance helped or hurt: the page shades each token by how many times more likely guidance made
it, marks the tokens where the base alone would have said another one, and draws both along the answer, with a slider
over the alphas. It needs no network and no server once it is written. Without --url and without models it makes a tiny
random triple, whose words are noise.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import io
import math
import warnings
from pathlib import Path

import sglang as sgl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageOps
from rich.console import Console

from programs.demo import add_models, check_models, guided_server
from programs.explain_chart import draw
from programs.explanation import SHADE_FACTORS, Explanation, answer_from_trace
from sgl_proxythinker import ProxyBackend, proxy_gen
from sgl_proxythinker.strength import TRACE

console = Console()

HERE = Path(__file__).parent
PICTURE_PIXELS = 1200  # the longest side in the page; the models see the picture as it is


@sgl.function
def one_answer(s, pictures, question, alpha, max_tokens):
    content = question
    for picture in reversed(pictures):
        content = sgl.image(str(picture)) + content
    s += sgl.user(content)
    s += sgl.assistant(proxy_gen("answer", alpha=alpha, trace=True, max_tokens=max_tokens, temperature=0))


def explain(
    backend: ProxyBackend, pictures: list[Path], question: str, alphas: list[float], max_tokens: int
) -> Explanation:
    """Ask at every alpha at once, greedily, and read the traces.

    Raises:
        KeyError: a request failed; the message says why.
    """
    alphas = sorted(set(alphas))
    shared = {"pictures": pictures, "question": question, "max_tokens": max_tokens}
    with warnings.catch_warnings():
        # With a traceback of what the state then says in a sentence.
        warnings.filterwarnings("ignore", message="Error in stream_executor")
        states = one_answer.run_batch([{**shared, "alpha": alpha} for alpha in alphas], backend=backend)
    answers = []
    for alpha, state in zip(alphas, states, strict=True):
        state["answer"]  # of a request that failed it says why
        answers.append(answer_from_trace(alpha, state.get_meta_info("answer")[TRACE], backend.detokenize))
    proxy = backend.model_info["proxy"]
    return Explanation(
        question=question,
        pictures=[picture_url(picture) for picture in pictures],
        base=backend.model_info["model_path"],
        expert=proxy["expert"],
        amateur=proxy["amateur"],
        answers=answers,
    )


def picture_url(path: Path) -> str:
    """A data URL of the picture, upright, and small enough for a page."""
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    upright.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    buffer = io.BytesIO()
    upright.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def page(explanation: Explanation) -> str:
    """The whole page: HTML that loads nothing and runs no script but its own, whatever the models wrote."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    lowest = explanation.lowest_logprob
    style, script = ((HERE / f"explain.{kind}").read_text() for kind in ("css", "js"))
    return environment.get_template("explain.html").render(
        explanation=explanation,
        answers=[(answer, draw(answer, lowest)) for answer in explanation.answers],
        bottom_odds=f"{float(f'{math.exp(-lowest):.2g}'):,.0f}",
        shade_factors=SHADE_FACTORS,
        style=Markup(style),
        script=Markup(script),
        style_hash=content_hash(style),
        script_hash=content_hash(script),
    )


def content_hash(text: str) -> str:
    """What a Content-Security-Policy calls a text that it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m programs.explain", description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a running guided server; without it, one is started")
    add_models(parser)
    parser.add_argument("--image", type=Path, action="append", default=[], help="a picture; again for another one")
    parser.add_argument("--question", required=True)
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.0, 0.25, 0.5, 1.0])
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--html", type=Path, required=True, help="the page to write")
    parser.add_argument("--json", action="store_true", help="print what the page shows")
    args = parser.parse_args(arguments)
    check_models(parser, args)
    if args.url and args.base:
        parser.error("give --url or models, not both: a running server has its own")
    for picture in args.image:
        if not picture.is_file():
            parser.error(f"there is no picture {picture}")
    args.alpha = 0.5  # the server's default, which no request here uses
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    with contextlib.nullcontext(args.url) if args.url else guided_server(args) as url:
        try:
            backend = ProxyBackend(url)
            explanation = explain(backend, args.image, args.question, args.alphas, args.max_tokens)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise SystemExit(f"{error}") from error
    args.html.write_text(page(explanation), encoding="utf-8")
    if args.json:
        print(explanation.model_dump_json(indent=2, exclude={"pictures"}))
        return
    for answer in explanation.answers:
        console.print(f"alpha {answer.alpha:g}: {answer.flips} of {len(answer.tokens)} tokens are not the base's first")
    console.print(f"Written: {args.html}")


if __name__ == "__main__":
    main()
