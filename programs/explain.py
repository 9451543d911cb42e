"""See what the expert changed: one question at several strengths, every answer token by token, in one HTML page.

    proxythinker explain --image picture.png --question "How many?" --alphas 0 0.5 1 --html out.html
    proxythinker explain --question "How many?" --html law.html --law '{"kind": "entropy", "above": 0.7}'

Good for finding out why guidance helped or hurt: the page shades each token by how many times more likely guidance made
it, marks the tokens where the base alone would have said another one, and draws both along the answer, with a slider
over the alphas. Under a law of strength (docs/laws.md) it draws how strongly each token was steered. It needs no
network and no server once it is written.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sglang as sgl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from rich.text import Text

from sgl_proxythinker import ProxyBackend, proxy_gen
from sgl_proxythinker.answers import THINK_FIRST, ask
from sgl_proxythinker.guidance import ALPHA, LAW, Defaults, read_guidance
from sgl_proxythinker.laws import read_law
from sgl_proxythinker.programs.command_line import (
    add_alphas,
    add_law_and_cuts,
    add_question,
    make_parser,
    run_command,
)
from sgl_proxythinker.programs.explain_chart import draw
from sgl_proxythinker.programs.explanation import SHADE_FACTORS, Explanation, answer_from_meta
from sgl_proxythinker.programs.generation import checked, run_batch, turn
from sgl_proxythinker.programs.pictures import data_url

ALPHAS = (0.0, 0.25, 0.5, 1.0)
HERE = Path(__file__).parent
PICTURE_PIXELS = 1200  # the longest side in the page; the models see the picture as it is


@sgl.function
def one_answer(s, pictures, question, alpha, law, clip, plausible, expert, max_tokens):
    s += sgl.user(turn(pictures, question))
    s += sgl.assistant(
        proxy_gen(
            "answer", alpha=alpha, law=law, clip=clip, plausible=plausible, expert=expert, trace=True,
            max_tokens=max_tokens,
        )
    )  # fmt: skip


def explain(
    backend: ProxyBackend,
    pictures: Sequence[Image.Image],
    question: str,
    *,
    alphas: Sequence[float] = ALPHAS,
    law: Any = None,
    clip: float | None = None,
    plausible: float | None = None,
    expert: str | None = None,
    instruction: str = THINK_FIRST,
    max_tokens: int = 1024,
    progress_bar: bool = False,
) -> Explanation:
    """Ask at every alpha, and under the law, at once and greedily, and read the traces.

    Args:
        alphas: the order does not matter, and one that is there twice is asked once.
        law: of one more answer, as in `proxy_law`. Its constant strength, where it leaves room for one, is the
            strongest of `alphas`.
        clip, plausible: of all answers; None: the server's.
        expert: which of the server's; None: the default one.
        progress_bar: of the answers, on stderr.

    Raises:
        ProgramFailed: a request failed; the message says why.
        ValueError: the law steers no token.
    """
    alphas = sorted(set(alphas))
    asked = {
        "pictures": pictures, "question": ask(question, instruction), "max_tokens": max_tokens, "expert": expert,
        "clip": clip, "plausible": plausible,
    }  # fmt: skip
    each = [{**asked, "alpha": alpha, "law": None} for alpha in alphas]
    if law:
        each.append({**asked, "alpha": _constant_beside(law, alphas), "law": law})
    states = run_batch(one_answer, backend, each, temperature=0, progress_bar=progress_bar)
    metas = [checked(state).get_meta_info("answer") for state in states]
    proxy = backend.model_info["proxy"]
    default = {"path": proxy["expert"], "amateur": proxy["amateur"]}
    pair = proxy["experts"].get(expert, default)
    return Explanation(
        question=question,
        pictures=[picture_url(picture) for picture in pictures],
        base=backend.model_info["model_path"],
        expert=pair["path"],
        amateur=pair["amateur"],
        answers=[answer_from_meta(meta, backend.detokenize) for meta in metas],
    )


def _constant_beside(law: Any, alphas: Sequence[float]) -> float | None:
    """The strongest of the constants; None beside points of a schedule, which say the strength at every token."""
    read = read_law(law)
    alpha = None if read is not None and read.schedule is not None else max(alphas, key=abs)
    said = {LAW: law} if alpha is None else {LAW: law, ALPHA: alpha}
    if read_guidance(said, Defaults(), pairs=None).is_base_alone:
        raise ValueError("the law steers no token: give --alphas a strength other than 0, or another law")
    return alpha


def picture_url(picture: Image.Image) -> str:
    """A data URL of an RGB picture, small enough for a page."""
    shown = picture.copy()
    shown.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    return data_url(shown, "WEBP", quality=85)


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


def show(explanation: Explanation) -> Text:
    lines = [
        f"{answer.name}: {answer.flips} of {len(answer.tokens)} tokens are not the base's first"
        + ("" if answer.law is None else f", {answer.steered} were steered")
        for answer in explanation.answers
    ]
    return Text("\n".join(lines))


def page_file(name: str) -> Path:
    path = Path(name)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent} to write {path.name} into")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("explain", __doc__)
    add_question(parser)
    add_alphas(parser, ALPHAS)
    add_law_and_cuts(
        parser,
        'one more answer, whose strength changes from token to token, as \'{"kind": "entropy", "above": 0.7}\'; '
        "where it needs a constant one, the strongest of --alphas",
    )
    parser.add_argument(
        "--named-expert", metavar="NAME", help="of a server of several experts; default: its default one"
    )
    parser.add_argument("--html", type=page_file, required=True, metavar="FILE", help="the page to write")

    def work(args, backend):
        explanation = explain(
            backend, args.pictures, args.question, alphas=args.alphas, law=args.law, clip=args.clip,
            plausible=args.plausible, expert=args.named_expert, instruction=args.instruction,
            max_tokens=args.max_tokens, progress_bar=sys.stderr.isatty(),
        )  # fmt: skip
        args.html.write_text(page(explanation), encoding="utf-8")
        return explanation

    run_command(parser, arguments, work, show)


if __name__ == "__main__":
    main()
