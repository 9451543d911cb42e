"""Scalars of a body have the JSON type of their field."""

from typing import Annotated, Literal, Optional, Union

import pytest
from pydantic import Field

from sgl_proxythinker.policy.json_types import check_types, scalars_of

FIELDS = {
    "stream": frozenset([bool]),
    "n": frozenset([int]),
    "top_p": frozenset([float]),
    "stop": frozenset([str]),
    "prompt": frozenset([int, str]),
}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Optional[bool], {bool}),  # noqa: UP045
        (Union[list[int], list[list[int]], str, list[str]], {int, str}),  # noqa: UP007
        (int | None, {int}),
        (Annotated[float, Field(ge=0)] | None, {float}),
        (Literal["a", "b"], None),
        (dict[str, float] | str, None),
    ],
)
def test_a_field_of_scalars_is_read_from_its_annotation(annotation, expected):
    assert scalars_of(annotation) == (None if expected is None else frozenset(expected))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", True), ("stream", None), ("n", 4), ("n", 4.0), ("top_p", 1), ("top_p", 0.5), ("stop", "a"),
        ("stop", ["a", "b"]), ("prompt", "a"), ("prompt", [1, 2]), ("prompt", [[1], [2, 3]]), ("prompt", ["a"]),
        ("prompt", {"what": "SGLang's model says"}), ("unknown", "anything"),
    ],
)  # fmt: skip
def test_what_fits_is_taken_and_what_is_no_scalar_is_left_to_others(field, value):
    check_types({field: value}, FIELDS)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("stream", "true", "stream is 'true': send true or false."),
        ("stream", 1, "stream is 1: send true or false."),
        ("n", True, "n is true: send a whole number."),
        ("n", "4", "n is '4': send a whole number."),
        ("n", 4.5, "n is 4.5: send a whole number."),
        ("top_p", "0.5", "top_p is '0.5': send a number."),
        ("top_p", False, "top_p is false: send a number."),
        ("stop", ["a", 5], "stop is 5: send a text."),
        ("prompt", [True], "prompt is true: send a whole number or a text."),
        ("prompt", [[1], [2, True]], "prompt is true: send a whole number or a text."),
        ("prompt", [4.0, 0.5], "prompt is 0.5: send a whole number or a text."),
    ],
)
def test_another_type_is_refused_with_what_came_and_what_is_wanted(field, value, sentence):
    with pytest.raises(ValueError) as error:
        check_types({field: value}, FIELDS)
    assert str(error.value) == sentence


def test_a_deep_list_is_no_recursion_without_an_end():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    check_types({"prompt": deep}, FIELDS)
