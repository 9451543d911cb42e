"""`proxythinker COMMAND`: which commands there are. Each takes what its module's own command line takes."""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple

import click


class Module(NamedTuple):
    """Where a command is, and what the list says of it."""

    name: str  # whose `main(arguments)` returns the exit code, or None
    about: str


# In the order in which a newcomer meets them. Modules are imported when they are run: SGLang takes ten seconds.
COMMANDS = {
    "demo": Module("programs.demo", "a base that is wrong alone, and right when guided"),
    "doctor": Module("doctor.__main__", "would these models start as one server, and what fits"),
    "serve": Module("commands.serve", "start SGLang's server, guided; takes all of its flags"),
    "tiny-family": Module("tiny_family.__main__", "the flags that serve the tiny models of this package"),
    "explain": Module("programs.explain", "a page that shows what the expert changed, by token"),
    "compare": Module("programs.compare", "one question to the base alone and guided, side by side"),
    "alpha-ladder": Module("programs.alpha_ladder", "one question at rising strengths"),
    "majority-vote": Module("programs.majority_vote", "many sampled answers, and the most common of them"),
    "think-then-answer": Module("programs.think_then_answer", "a free thought, then an answer of a given form"),
    "verify-and-revise": Module("programs.verify_and_revise", "an answer, its critique, and a better one"),
    "look-closer": Module("programs.look_closer", "a region that the model names, enlarged, then an answer"),
    "describe-then-reason": Module(
        "programs.describe_then_reason", "a description by the base, guided answers about it"
    ),
    "eval": Module("evaluation.command_line", "the paper's benchmarks over strengths, and a report"),
    "behaviours": Module("evaluation.behaviours.command_line", "how an evaluation's answers reason"),
    "random-triple": Module("programs.random_triple", "write tiny models of random weights, of any family"),
    "reference": Module("programs.reference_hf", "the method as a plain loop in transformers"),
    "version": Module("commands.version", "what is installed here"),
}

# Words behind a command go to its module as they are, `--help` too.
_AS_THEY_ARE = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)


@click.group(
    name="proxythinker",
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def main() -> None:
    """Guide a large vision-language model with small ones, in a stock SGLang.

    COMMAND --help says what each of them takes.
    """


def _add(command: str, module: Module) -> None:
    @main.command(name=command, help=module.about, short_help=module.about, context_settings=_AS_THEY_ARE)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def run(arguments: tuple[str, ...]) -> None:
        sys.exit(importlib.import_module(f"sgl_proxythinker.{module.name}").main(list(arguments)))


for _command, _module in COMMANDS.items():
    _add(_command, _module)
