"""Hypothesis strategies for one field: values of its declared type, and values that nobody should send."""

from __future__ import annotations

import enum
import types
import typing
from typing import Any, Literal

from hypothesis import strategies as st

from benchmarks.fuzz.declared import fields_of, is_declared, required_of
from benchmarks.fuzz.pictures import picture_texts

Strategy = st.SearchStrategy[Any]

# Past int32, int64, uint64, float32 and float64; JSON has no bound, and Python's reader takes Infinity and NaN too.
EDGE_INTEGERS = (-1, 0, 1, 2, 3, 359, 360, 447, 448, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64,
                 10**30, -2, -100, -(2**31) - 1, -(2**63), -(2**63) - 1)  # fmt: skip
EDGE_FLOATS = (0.5, 1.5, -0.0, 1e-45, 5e-324, 1e-7, 2.0, 100.0, 3.4e38, 3.5e38, 1e39, -1e39, 1e308, -1e308,
               float("inf"), float("-inf"), float("nan"))  # fmt: skip
EDGE_TEXTS = (
    "", " ", "\n", "\x00", "a\x00b", "0", "1", "-1", "1.5", "true", "null", "nan", "None", "[]", "{}", "(", "[", "*",
    "\\", "a" * 3000, "é", "日本語", "😀👍🏽", "\ud800", "\ufffd", "‮", "%s%n", "{{7*7}}", "{% raw %}",
    "../../etc/passwd", "default", "auto", "text", "image", "user", "NAME@0.8", "@", "<|im_end|>", "<|image_pad|>",
    "<|video_pad|>", "<|vision_start|><|image_pad|><|vision_end|>", "<tool_call>", "(a+)+$", "(.|.)*b", "root ::= root",
    "HEALTH_CHECK",
)  # fmt: skip
EDGE_STRUCTURES = (
    [], {}, [[]], [{}], [None], [None, None], [1], ["a"], [[1]], [[[1]]], [1, "a", None], [0.5], [True], [[], [5]],
    {"a": 1}, {"": None}, {"5": None}, {"5": 1e39}, {"-1": 1}, {"a": "b"}, {"type": "text"}, {"type": "object"},
    {"$ref": "#"}, {"proxy_alpha": 0.5}, list(range(100)),
)  # fmt: skip


def nested(depth: int) -> list:
    inner: list = []
    for _ in range(depth):
        inner = [inner]
    return inner


SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    SIMPLE,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=4), some, max_size=3),
    max_leaves=6,
)
EDGES: Strategy = st.one_of(
    st.sampled_from((None, True, False)),
    st.sampled_from(EDGE_INTEGERS),
    st.sampled_from(EDGE_FLOATS),
    st.sampled_from(EDGE_TEXTS),
    st.sampled_from(EDGE_STRUCTURES),
    st.sampled_from((60, 200)).map(nested),
    TREES,
)


def rarely(wrong: Strategy, good: Strategy, of: int = 12) -> Strategy:
    """`wrong` once in `of` draws. (`one_of` flattens what it is given: of more parts, a strategy is drawn more.)"""
    return st.sampled_from([*[good] * (of - 1), wrong]).flatmap(lambda strategy: strategy)


WORDS = ("Look", "at the picture", "Hi", "What is shown?", "the answer is", "b " * 40, "Wait, é 日本")
# Where the type alone would hardly ever give a value in range, so that bodies reach the scheduler.
IN_RANGE: dict[str, Strategy] = {
    "temperature": st.sampled_from((0, 0.5, 1, 2.0)),
    "top_p": st.sampled_from((1e-6, 0.5, 1.0)),
    "top_k": st.sampled_from((-1, 1, 5, 10**6)),
    "min_p": st.sampled_from((0.0, 0.3, 1.0)),
    "frequency_penalty": st.sampled_from((-2, 0.5, 2)),
    "presence_penalty": st.sampled_from((-2, 0.5, 2)),
    "repetition_penalty": st.sampled_from((0.01, 1.1, 2)),
    "model": st.sampled_from(("default", "m", "")),
    "n": st.integers(1, 4),
    "best_of": st.integers(1, 4),
    "min_tokens": st.integers(0, 4),
    "min_new_tokens": st.integers(0, 4),
    "top_logprobs": st.integers(0, 5),
    "top_logprobs_num": st.integers(0, 5) | st.lists(st.integers(0, 5), max_size=3),
    "stop": st.sampled_from(("a", "\n", ["a", "bc"], [], " ")),
    "stop_token_ids": st.lists(st.integers(0, 359), max_size=3),
    "stop_regex": st.sampled_from(("a", "[0-9]+", ["x", "y?z"])),
    "regex": st.sampled_from(("[ab]+", "a*", "(yes|no)", r"\d{1,3}", "😀+")),
    "ebnf": st.sampled_from(('root ::= "a" | "b"', 'root ::= [a-z]+')),
    "json_schema": st.sampled_from(
        ('{"type":"object"}', '{"type":"array","items":{"type":"integer"}}', '{"enum":[1,"a"]}')
    ),
    "logit_bias": st.dictionaries(st.integers(0, 359).map(str), st.sampled_from((-100, -1, 1.5, 100)), max_size=3),
    "custom_params": st.fixed_dictionaries(
        {}, optional={"proxy_alpha": st.sampled_from((0, 0.5, -1, 2.0)), "proxy_trace": st.booleans()}
    ),
    "rid": st.sampled_from(("job", "job-1", "job-10", "job-2", "again")),
    "tool_choice": st.sampled_from(
        ("auto", "none", "required", {"type": "function", "function": {"name": "f"}}, {"type": "any"},
         {"type": "tool", "name": "f"})
    ),
    "input_ids": st.lists(st.integers(0, 345), min_size=1, max_size=6),
    "image_data": picture_texts(),
    "images": st.lists(picture_texts(), max_size=2),
    "stream_options": st.fixed_dictionaries(
        {}, optional={"include_usage": st.booleans(), "continuous_usage_stats": st.booleans()}
    ),
}  # fmt: skip


def field(name: str, kind: Any) -> Strategy:
    """What a client may put into a field: what it takes, half of the time or more."""
    return rarely(EDGES, rarely(typed(kind), IN_RANGE.get(name, typed(kind)), of=3), of=4)


def typed(kind: Any, depth: int = 3) -> Strategy:
    """Values of a declared type: not all of them are in range."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return typed(arguments[0], depth)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([typed(argument, depth) for argument in arguments])
    if origin in (list, set, frozenset, tuple) or kind in (list, set, tuple):
        inner = arguments[0] if arguments else Any
        return st.lists(typed(inner, depth - 1), max_size=3) if depth else st.just([])
    if origin is dict or kind is dict:
        inner = arguments[1] if arguments else Any
        keys = st.sampled_from(("a", "5", "type", "")) | st.text(max_size=3)
        return st.dictionaries(keys, typed(inner, depth - 1), max_size=2) if depth else st.just({})
    if is_declared(kind):
        return declared(kind, depth - 1) if depth else st.just({})
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from([member.value for member in kind])
    leaves: dict[Any, Strategy] = {
        type(None): st.none(),
        bool: st.booleans(),
        int: st.integers(0, 9) | st.sampled_from(EDGE_INTEGERS) | st.integers(),
        float: st.floats(0, 2) | st.sampled_from(EDGE_FLOATS + EDGE_INTEGERS),
        str: st.sampled_from(WORDS) | st.sampled_from(EDGE_TEXTS) | st.text(max_size=8),
    }
    return leaves.get(kind, TREES)


def declared(kind: type, depth: int = 2) -> Strategy:
    """An object of a declared class: its required fields, and some of the others."""
    required = {name: typed(each, depth) for name, each in fields_of(kind).items() if name in required_of(kind)}
    return st.tuples(st.fixed_dictionaries(required), some_fields(kind, depth)).map(lambda both: {**both[1], **both[0]})


def some_fields(kind: type, depth: int = 2) -> Strategy:
    """Up to three of the fields of a class, as `field` has them: of many wrong ones, only the first is read."""
    names = sorted(fields_of(kind))
    if not names:
        return st.just({})
    one = st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), field(name, fields_of(kind)[name])))
    return st.sampled_from((1, 0, 1, 2, 3)).flatmap(lambda size: st.lists(one, min_size=size, max_size=size)).map(dict)
