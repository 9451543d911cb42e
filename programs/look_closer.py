"""Let the model say where to look, show it that part enlarged, and ask again.

    proxythinker look-closer --image street.jpg --question "What does the small sign say?" --crop sign.png

For small things in large pictures: the models see a picture in pieces of 28 pixels, and what is smaller than a few of
these is lost. The region is constrained JSON in pixels; the program cuts it out and enlarges it with Pillow, and the
crop becomes the picture of a new turn, after everything that was seen before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import sglang as sgl
from PIL import Image
from rich.console import Group
from rich.text import Text

from sgl_proxythinker import proxy_gen
from sgl_proxythinker.answers import THINK_FIRST, ask
from sgl_proxythinker.frontend.guided_backend import GuidedBackend
from sgl_proxythinker.programs.command_line import add_alpha, add_question, make_parser, run_command
from sgl_proxythinker.programs.generation import Generation, ProgramFailed, Result, checked, generation, run, turn
from sgl_proxythinker.programs.region import Region, enlarge, region_regex, shown_box
from sgl_proxythinker.programs.terminal import answer_line, panel

WHERE = (
    "{sizes}\n\n{question}\n\nBefore you answer: which part of a picture has to be seen up close for that? Name it as "
    'JSON, like {{"picture": 1, "bbox_2d": [left, top, right, bottom]}}, in pixels from the top left corner.'
)
AGAIN = "This is the part that you named, enlarged. With it, answer the question: {question}"
REGION_TOKENS = 64


class Closer(Result):
    question: str
    naming: Generation
    named: Region  # as the model said it: its corners may be swapped or lie outside
    shown: tuple[int, int, int, int]  # left, top, right, bottom of what was cut out, in pixels of that picture
    crop_size: tuple[int, int]  # width and height of the crop as the model saw it, in pixels
    generation: Generation
    answer: str  # what it claims; empty if nothing


@sgl.function
def look(s, pictures, question, instruction, alpha, max_tokens, cut_out: Callable[[str], Image.Image]):
    sizes = "\n".join(f"Picture {number} is {p.width} x {p.height} pixels." for number, p in enumerate(pictures, 1))
    s += sgl.user(turn(pictures, WHERE.format(sizes=sizes, question=question)))
    # Grounding is what the large base was trained for; RL on reasoning has nothing to add to it.
    s += sgl.assistant(
        proxy_gen("region", alpha=0, max_tokens=REGION_TOKENS, temperature=0, regex=region_regex(len(pictures)))
    )
    s += sgl.user(turn([cut_out(checked(s)["region"])], ask(AGAIN.format(question=question), instruction)))
    s += sgl.assistant(proxy_gen("answer", alpha=alpha, max_tokens=max_tokens, temperature=0))


def look_closer(
    backend: GuidedBackend,
    pictures: Sequence[Image.Image],
    question: str,
    *,
    alpha: float | None = None,
    instruction: str = THINK_FIRST,
    max_tokens: int = 1024,
    keep_crop: Callable[[Image.Image], object] | None = None,
) -> Closer:
    """Ask where to look, and then what is there.

    Args:
        pictures: one at least.
        alpha: of the answer; None for the backend's or server's default. The region is the base's.
        keep_crop: is given the enlarged part before the model is.

    Raises:
        ProgramFailed: a call failed, or the region was cut off.
        ValueError: no picture.
    """
    if not pictures:
        raise ValueError("there is nothing to look at: give a picture")
    looked: list[tuple[Region, tuple[int, int, int, int], Image.Image]] = []

    def cut_out(text: str) -> Image.Image:
        named = _read(text)
        picture = pictures[named.picture - 1]
        box = shown_box(named.bbox_2d, picture.size)
        looked.append((named, box, enlarge(picture, box)))
        if keep_crop is not None:
            keep_crop(looked[0][2])
        return looked[0][2]

    asked = {"question": question, "instruction": instruction, "alpha": alpha, "max_tokens": max_tokens}
    state = run(look, backend, pictures=pictures, cut_out=cut_out, **asked)
    ((named, box, crop),) = looked
    made = generation(state, "answer")
    return Closer(
        question=question, naming=generation(state, "region"), named=named, shown=box, crop_size=crop.size,
        generation=made, answer=made.claim,
    )  # fmt: skip


def _read(text: str) -> Region:
    try:
        return Region.model_validate(json.loads(text))
    except ValueError as error:
        raise ProgramFailed(f"the region was cut off at {REGION_TOKENS} tokens: {text!r}") from error


def show(closer: Closer) -> Group:
    width, height = closer.crop_size
    left, top, right, bottom = closer.shown
    where = (
        f"picture {closer.named.picture}, ({left}, {top}) to ({right}, {bottom}), shown as {width} x {height} pixels"
    )
    return Group(
        panel("region", closer.naming), Text(where), panel("answer", closer.generation),
        answer_line("answer", closer.answer),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("look_closer", __doc__)
    add_question(parser)
    add_alpha(parser)
    parser.add_argument("--crop", type=Path, metavar="FILE", help="write the enlarged part here, to see what it saw")
    parser.set_defaults(needs_picture=True)
    run_command(
        parser,
        arguments,
        lambda args, backend: look_closer(
            backend, args.pictures, args.question, alpha=args.alpha, instruction=args.instruction,
            max_tokens=args.max_tokens, keep_crop=None if args.crop is None else lambda crop: crop.save(args.crop),
        ),
        show,
    )  # fmt: skip


if __name__ == "__main__":
    main()
