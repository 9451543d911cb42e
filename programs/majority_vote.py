"""Sample several guided answers, at several strengths, and let the majority decide.

    proxythinker majority-vote --image figure.png --question "How many?" --alphas 0.3 0.5 0.8 --samples 3

For answers that matter more than their cost, and for knowing how sure an answer is: the agreement says so. The picture
and the question are computed once, at the fork; every sample reads them from the prefix cache, whatever its strength.
Only samples at alpha 0, which the base answers alone, read them once more.
"""

from __future__ import annotations

from collections.abc import Sequence

import sglang as sgl
from PIL import Image
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sgl_proxythinker import proxy_gen
from sgl_proxythinker.answers import THINK_FIRST, ask, normal_form, same_answer
from sgl_proxythinker.frontend.guided_backend import GuidedBackend
from sgl_proxythinker.programs.command_line import (
    add_alphas,
    add_question,
    add_regex,
    make_parser,
    positive,
    run_command,
)
from sgl_proxythinker.programs.generation import Generation, Result, fork, generation, run, turn
from sgl_proxythinker.programs.terminal import answer_line, printable

ALPHAS = (0.3, 0.5, 0.8)


class Ballot(Result):
    answer: str  # normal form; empty if nothing was claimed, which is no vote for anything
    generation: Generation


class Count(Result):
    answer: str
    votes: int


class Majority(Result):
    question: str
    answer: str  # with the most votes; of several, the one that came first; empty if nobody claimed anything
    agreement: float  # share of all ballots that are for it, in [0, 1]
    tied: bool  # another answer has as many votes
    counts: list[Count]  # most votes first
    ballots: list[Ballot]  # in the order of the alphas, samples of one alpha together


@sgl.function
def vote(s, pictures, question, alphas, regex, max_tokens):
    s += sgl.user(turn(pictures, question)) + sgl.assistant_begin()
    voters = fork(s, len(alphas))  # all that stands so far is computed here
    for voter, alpha in zip(voters, alphas, strict=True):
        voter += proxy_gen("answer", alpha=alpha, max_tokens=max_tokens, regex=regex)
        voter += sgl.assistant_end()
    voters.join()
    return voters


def majority_vote(
    backend: GuidedBackend,
    pictures: Sequence[Image.Image],
    question: str,
    *,
    alphas: Sequence[float] = ALPHAS,
    samples: int = 3,
    temperature: float = 0.7,
    regex: str | None = None,
    instruction: str = THINK_FIRST,
    max_tokens: int = 1024,
) -> Majority:
    """`samples` answers at each strength, all at once, counted by what they claim.

    Args:
        regex: that each whole answer matches, as "[ABCD]"; for questions that need no thought.

    Raises:
        ProgramFailed: a call failed; what the others said is not counted then.
        ValueError: fewer than two ballots.
    """
    each = [alpha for alpha in alphas for _ in range(samples)]
    if len(each) < 2:
        raise ValueError("a vote takes two ballots at least: give more alphas or more samples")
    asked = {"question": ask(question, instruction), "alphas": each, "regex": regex, "max_tokens": max_tokens}
    voters = run(vote, backend, pictures=pictures, temperature=temperature, **asked).ret_value
    said = [generation(voter, "answer") for voter in voters]
    ballots = [Ballot(answer=normal_form(one.claim), generation=one) for one in said]
    counts = count([ballot.answer for ballot in ballots])
    most = counts[0].votes if counts else 0
    return Majority(
        question=question,
        answer=counts[0].answer if counts else "",
        agreement=most / len(ballots),
        tied=sum(one.votes == most for one in counts) > 1,
        counts=counts,
        ballots=ballots,
    )


def count(answers: Sequence[str]) -> list[Count]:
    """Votes by answer, equal ones together under the first of them; most votes first, then first come."""
    votes: dict[str, int] = {}
    for answer in filter(None, answers):
        known = next((one for one in votes if same_answer(one, answer)), answer)
        votes[known] = votes.get(known, 0) + 1
    return [Count(answer=one, votes=votes[one]) for one in sorted(votes, key=lambda one: -votes[one])]


def show(majority: Majority) -> Group:
    table = Table("alpha", "answer", "tokens", "cached", title="ballots")
    for ballot in majority.ballots:
        made = ballot.generation
        cached = f"{made.cached_tokens} of {made.prompt_tokens}"
        claim = printable(ballot.answer) if ballot.answer else Text("nothing was claimed", "italic")
        table.add_row(
            f"{made.alpha:g}", claim, f"{made.completion_tokens}{' (cut off)' if made.cut_off else ''}", cached
        )
    votes = majority.counts[0].votes if majority.counts else 0
    tie = ", tied with another" if majority.tied else ""
    agreement = f"{votes} of {len(majority.ballots)} ballots agree ({majority.agreement:.0%}){tie}"
    return Group(table, answer_line("answer", majority.answer), Text(agreement))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("majority_vote", __doc__)
    add_question(parser)
    add_alphas(parser, ALPHAS)
    parser.add_argument("--samples", type=positive, default=3, help="answers at each strength (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the samples (%(default)s)")
    add_regex(parser)
    run_command(
        parser,
        arguments,
        lambda args, backend: majority_vote(
            backend, args.pictures, args.question, alphas=args.alphas, samples=args.samples,
            temperature=args.temperature, regex=args.regex, instruction=args.instruction, max_tokens=args.max_tokens,
        ),
        show,
    )  # fmt: skip


if __name__ == "__main__":
    main()
