"""The command line that the programs share: models or a server, pictures, a question; a table or JSON out."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from pydantic import BaseModel
from rich.console import Console, RenderableType

from sgl_proxythinker import ProxyBackend
from sgl_proxythinker.answers import THINK_FIRST
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import ALPHA, CLIP, LAW, PLAUSIBLE, Defaults, Guidance, read_guidance
from sgl_proxythinker.pictures.program import see
from sgl_proxythinker.programs.generation import ProgramFailed
from sgl_proxythinker.programs.serving import Models, is_trained_family, serving, trained_family

SERVED_ALPHA = 0.5  # of a server that is started here; calls that name none take it

R = TypeVar("R", bound=BaseModel)


def make_parser(program: str, about: str) -> argparse.ArgumentParser:
    """What every program takes. `about` is its docstring, of which the first line is shown."""
    parser = argparse.ArgumentParser(
        prog=f"proxythinker {program.replace('_', '-')}", description=about.splitlines()[0]
    )
    parser.add_argument(
        "--image", dest="pictures", metavar="FILE", type=picture, nargs="+", action="extend", default=[],
        help="pictures, in the order in which the model sees them",
    )  # fmt: skip
    parser.add_argument(
        "--instruction",
        help=f"how to answer, put after the question (default: {THINK_FIRST!r}; none for the tiny trained family)",
    )
    parser.add_argument("--max-tokens", type=positive, default=1024, help="of each free answer (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    parser.set_defaults(needs_picture=False)  # a program without pictures to work on says True
    server = parser.add_argument_group("the server", "Without these, the tiny trained family is served.")
    server.add_argument("--url", help="of a running guided server, as http://127.0.0.1:30000")
    server.add_argument("--api-key", help="of that server")
    for role in ("base", "expert", "amateur"):
        server.add_argument(f"--{role}", help=f"the {role}, a path or a hub id: start a server with these three")
    return parser


def add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--question", required=True)


def add_alpha(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alpha", type=strength, help="strength of guidance (default: the server's)")


def add_alphas(parser: argparse.ArgumentParser, default: Sequence[float]) -> None:
    shown = " ".join(f"{alpha:g}" for alpha in default)
    parser.add_argument("--alphas", type=strength, nargs="+", default=default, help=f"strengths of guidance ({shown})")


def add_law_and_cuts(parser: argparse.ArgumentParser, law_help: str) -> None:
    """What a request says beside a strength, as servers take it by `--proxy-law` and its like."""
    parser.add_argument("--law", type=law, metavar="JSON", help=law_help)
    parser.add_argument("--clip", type=clip, metavar="C", help="cut expert - amateur to [-C, C] logits (the server's)")
    parser.add_argument(
        "--plausible", type=plausible, metavar="R",
        help="no id below R times the base's best probability can be drawn (the server's)",
    )  # fmt: skip


def add_regex(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--regex", type=regex, help="that each whole answer matches, as [ABCD]; leaves no room for a thought"
    )


def run_command(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace, ProxyBackend], R],
    shown: Callable[[R], RenderableType],
) -> None:
    """Parse, find or start a server, do the work, print what came of it.

    Args:
        arguments: of the command line; None for the process's own.
        work: makes the result; a ValueError of it is about its arguments. `args.instruction` is a text by then.
        shown: what a person sees of it in a terminal.

    Raises:
        SystemExit: with a sentence on stderr, and 2 for arguments that can't be, 1 for anything that failed.
    """
    args = parser.parse_args(arguments)
    models = (args.base, args.expert, args.amateur)
    if any(models) and not all(models):
        parser.error("give all of --base, --expert and --amateur, or none of them")
    if args.url and any(models):
        parser.error("--url names a server that runs already: leave out --base, --expert and --amateur")
    if args.needs_picture and not args.pictures:
        parser.error("give a picture with --image")
    # SGLang's interpreter warns, with a traceback, of what it then keeps as the program's error: it is told below.
    warnings.filterwarnings("ignore", message="Error in stream_executor")
    try:
        with _server(args) as url:
            backend = _connect(url, args.api_key)
            if args.instruction is None:
                args.instruction = "" if is_trained_family(backend.model_info["model_path"]) else THINK_FIRST
            result = work(args, backend)
    except (ProgramFailed, ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    if args.json:
        print(result.model_dump_json(indent=2))
    else:
        Console(highlight=False).print(shown(result))


@contextlib.contextmanager
def _server(args: argparse.Namespace) -> Iterator[str]:
    if args.url:
        yield args.url
        return
    with tempfile.TemporaryDirectory(prefix="proxythinker-") as scratch:
        models = Models(args.base, args.expert, args.amateur) if args.base else trained_family()
        with serving(models, SERVED_ALPHA, Path(scratch) / "server.log", Console(stderr=True)) as url:
            yield url


def _connect(url: str, api_key: str | None) -> ProxyBackend:
    try:
        return ProxyBackend(url, api_key)
    except (ConnectionError, RuntimeError, ValueError) as error:  # no server, none that guides, a strange template
        raise ProgramFailed(str(error)) from error


# Values of arguments. argparse prints the sentence of an ArgumentTypeError.


def picture(path: str) -> Image.Image:
    """A picture as the server sees it: upright, and on white where it is transparent."""
    try:
        return see(path)
    except RequestError as error:
        raise argparse.ArgumentTypeError(f"{path} can't be read as a picture: {error}") from error


def strength(text: str) -> float:
    return _asked(ALPHA, _number(text)).weights[0]


def clip(text: str) -> float:
    value = _number(text)
    _asked(CLIP, value)
    return value


def plausible(text: str) -> float:
    value = _number(text)
    _asked(PLAUSIBLE, value)
    return value


def law(text: str) -> Any:
    """A `proxy_law` as a request has it: an object, or a list of them."""
    try:
        value = json.loads(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON") from None
    _asked(LAW, value)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} has no law: name one, or leave the option out")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _asked(name: str, value: Any) -> Guidance:
    """Of a request that says this alone."""
    try:
        return read_guidance({name: value}, Defaults())
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    return text


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
