"""`docs/refusals.md`, written from the tables that a server checks with.

python -m sgl_proxythinker.policy.page > docs/refusals.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from sgl_proxythinker.policy import body_fields, environment, generate_fields, routes, server_arguments

_HEAD = """# What is refused, and why

A server that is guided by three models refuses what would make an answer another than it says, before it serves or
before the first byte of an answer. This page is written from the tables that it checks with, in
`sgl_proxythinker/policy/` (`python -m sgl_proxythinker.policy.page > docs/refusals.md`), and a test compares the two. A
plain server (no `--proxy-expert-path`) takes SGLang's flags and routes, on one host and without replicas (`--dp-size`).

What nobody has classified is refused too: SGLang gains flags, routes and fields with every release.
Fields of requests that are refused by their value have their ranges in [requests.md](requests.md); tools and templates
are in [fields.md](fields.md), pictures in [pictures.md](pictures.md), checkpoints that do not match in
[families.md](families.md) and [precisions.md](precisions.md).
"""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [
        _HEAD,
        "## Flags of SGLang's\nThe launch ends with a sentence for each.\n",
        _table(("flags", "why", "instead"), _flags()),
        "## Flags with a choice\n",
        _table(("flag", "values", "why no other"), _limits()),
        "## Environment variables\n",
        _table(("variable", "why"), ((_code([name]), why) for name, why in environment.REFUSED.items())),
        "## Routes\nA refused route answers 400 with these words.\n",
        _table(("routes", "why", "instead"), _routes()),
        "## Fields of `/generate`\nA 400, where the field is set to something other than its default.\n",
        _table(("fields", "why"), ((_code(one.fields.split()), one.why) for one in generate_fields.REFUSED)),
        "## Fields of other bodies\nThe same, by route.\n",
        _table(("route", "fields", "why", "instead"), _bodies()),
    ]
    return "\n".join(parts)


def _flags() -> Iterator[tuple[str, ...]]:
    for refusal in server_arguments.REFUSED:
        yield _code(map(server_arguments.flag, refusal.fields.split())), refusal.why, refusal.instead


def _limits() -> Iterator[tuple[str, ...]]:
    for field, limits in server_arguments.LIMITS.items():
        yield _code([server_arguments.flag(field)]), _code(map(str, limits.allowed)), limits.why


def _routes() -> Iterator[tuple[str, ...]]:
    for refusal in routes.REFUSED:
        yield _code(refusal.routes.split()), refusal.why, refusal.instead


def _bodies() -> Iterator[tuple[str, ...]]:
    bodies = {id(body): body for body in body_fields.BODIES.values()}
    for body in bodies.values():
        at = _code(route for route, other in body_fields.BODIES.items() if other is body)
        for refusal in body.refused:
            yield at, _code(refusal.fields.split()), refusal.why, refusal.instead


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in lines)


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(page())
