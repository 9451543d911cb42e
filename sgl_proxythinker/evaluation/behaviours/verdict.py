"""A judge's verdict on an answer: the JSON schema that it is held to, how it is read, and what of it is counted.

Of each behaviour a judge gives the places in the answer that show it, each quoted, and how many there are. Both are
asked for so that neither is believed alone: with k different quotations that stand in the answer and a count of n,
min(k, n) are counted.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from sgl_proxythinker.evaluation.records import Behaviour

SHORTEST_QUOTATION, LONGEST_QUOTATION = 4, 60  # characters
# Without quotation marks and backslashes, nothing in a quotation is written otherwise in JSON than in the answer.
_QUOTATION = rf'^[^"\\\n]{{{SHORTEST_QUOTATION},{LONGEST_QUOTATION}}}$'
_SHOWN_CHARACTERS = 300  # of a text in an error


class JudgeError(Exception):
    """An answer has no verdict; the text says why, and what to change."""


class Seen(BaseModel):
    """What a judge says of one behaviour."""

    model_config = ConfigDict(extra="forbid", strict=True)

    quotations: list[str]
    count: NonNegativeInt


class _Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    backtracking: Seen
    verification: Seen
    subgoal_setting: Seen
    backward_chaining: Seen


def schema(most: int) -> dict[str, Any]:
    """The JSON schema of a verdict, in what OpenAI's strict mode takes: all fields required, no others.

    Args:
        most: occurrences of one behaviour.
    """
    quotations = {"type": "array", "items": {"type": "string", "pattern": _QUOTATION}, "maxItems": most}
    seen = _object({"quotations": quotations, "count": {"type": "integer", "minimum": 0, "maximum": most}})
    return _object({behaviour.value: seen for behaviour in Behaviour})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_verdict(completion: Any, most: int) -> dict[Behaviour, Seen]:
    """What a chat completion says.

    Args:
        completion: of the `openai` client. An endpoint that isn't one of chats may have made anything of it.
        most: occurrences of one behaviour that it may report.

    Raises:
        JudgeError: it says nothing, was cut off, or is not by the schema.
    """
    choices = getattr(completion, "choices", None)
    if not choices:
        raise JudgeError(f"the endpoint's answer is not one of a chat: {shortened(str(completion))}")
    message, end = choices[0].message, choices[0].finish_reason
    if end == "length":
        raise JudgeError("the verdict was cut off by the token limit: give the judge more (--judge-tokens)")
    if getattr(message, "refusal", None):
        raise JudgeError(f"the judge refused: {shortened(message.refusal)}")
    if end != "stop" or not message.content:
        raise JudgeError(f"the judge said nothing, or was stopped (finish_reason {end!r})")
    not_held = "the verdict is not by the schema, so the endpoint does not hold answers to one (`response_format`): "
    try:
        verdict = _Verdict.model_validate_json(message.content)
    except ValidationError as error:
        raise JudgeError(f"{not_held}{error.errors()[0]['msg']} in {shortened(message.content)}") from error
    seen: dict[Behaviour, Seen] = {behaviour: getattr(verdict, behaviour.value) for behaviour in Behaviour}
    if any(max(each.count, len(each.quotations)) > most for each in seen.values()):
        raise JudgeError(f"{not_held}more than {most} occurrences in {shortened(message.content)}")
    return seen


def count_quoted(verdict: dict[Behaviour, Seen], answer: str) -> dict[Behaviour, int]:
    """Of each behaviour the occurrences that are both counted and quoted.

    A quotation holds if it is not too short and stands in the answer, capital letters and white space aside.
    """
    plain = _plain(answer)
    counts = {}
    for behaviour, seen in verdict.items():
        different = set(map(_plain, seen.quotations))
        held = sum(len(text) >= SHORTEST_QUOTATION and text in plain for text in different)
        counts[behaviour] = min(seen.count, held)
    return counts


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def shortened(text: str) -> str:
    """As much of a text as an error shows."""
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
