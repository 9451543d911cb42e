"""What xgrammar reads over in a JSON schema is refused, and only that."""

import json

import pytest

from sgl_proxythinker.policy.schema_keywords import check_keywords

INTEGER = {"type": "integer"}
OBJECT = {"type": "object", "properties": {"a": INTEGER}}
# A schema, and a value that it forbids.
READ_OVER = {
    "allOf of several schemas": ({"allOf": [INTEGER, {"minimum": 5}]}, '"x"'),
    "not": ({"not": {"type": "string"}}, '"x"'),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, "7"),
    "if": ({"type": "integer", "if": {"minimum": 5}, "then": {"maximum": 7}}, "9"),
    "uniqueItems": ({"type": "array", "items": INTEGER, "uniqueItems": True}, "[1, 1]"),
    "contains": ({"type": "array", "items": INTEGER, "contains": {"const": 5}}, "[1]"),
    "dependentRequired": ({**OBJECT, "dependentRequired": {"a": ["b"]}}, '{"a": 1}'),
    "dependentSchemas": ({**OBJECT, "dependentSchemas": {"a": {"required": ["b"]}}}, '{"a": 1}'),
    "dependencies": ({**OBJECT, "dependencies": {"a": ["b"]}}, '{"a": 1}'),
    "required beside anyOf": (
        {"type": "object", "required": ["a"], "anyOf": [{"type": "object", "properties": {"b": INTEGER}}]}, "{}",
    ),
    "minimum beside allOf": ({"type": "integer", "allOf": [INTEGER], "minimum": 5}, "1"),
    "maxLength beside $ref": (
        {"type": "string", "$ref": "#/$defs/s", "maxLength": 1, "$defs": {"s": {"type": "string"}}}, '"xx"',
    ),
    "minimum without one type that it is obeyed for": ({"type": ["integer", "string"], "minimum": 3}, "1"),
    "maximum without one type that it is obeyed for": ({"maximum": 5}, "7"),
    "exclusiveMinimum without one type that it is obeyed for": ({"type": "number", "exclusiveMinimum": 5}, "4"),
    "maxLength without one type that it is obeyed for": ({"maxLength": 2}, '"aaa"'),
    "a length beside pattern or format": ({"type": "string", "pattern": "^a+$", "maxLength": 2}, '"aaaa"'),
}  # fmt: skip


@pytest.mark.parametrize("keyword", READ_OVER)
def test_xgrammar_takes_a_value_that_the_schema_forbids(keyword):
    xgrammar = pytest.importorskip("xgrammar")
    schema, value = READ_OVER[keyword]
    tokens = xgrammar.TokenizerInfo([*map(chr, range(128)), "</s>"], stop_token_ids=[128])
    matcher = xgrammar.GrammarMatcher(xgrammar.GrammarCompiler(tokens).compile_json_schema(json.dumps(schema)))
    assert matcher.accept_string(value) and matcher.accept_token(128), "it reads the keyword now: take it off the list"


@pytest.mark.parametrize("keyword", READ_OVER)
@pytest.mark.parametrize("where", ["{}", '{{"$ref": "#/$defs/x", "$defs": {{"x": {}}}}}', '{{"anyOf": [true, {}]}}'])
def test_it_is_refused_wherever_a_schema_stands(keyword, where):
    with pytest.raises(ValueError) as error:
        check_keywords(json.loads(where.format(json.dumps(READ_OVER[keyword][0]))), "response_format")
    assert str(error.value).startswith(f"response_format has {keyword}, which xgrammar reads over")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"not": INTEGER, "if": INTEGER, "multipleOf": INTEGER}},
        {"enum": [{"not": 1}, {"contains": 2}], "const": {"if": 1}},
        {"allOf": [INTEGER], "uniqueItems": False, "not": None, "dependentRequired": {}},
        {"allOf": [{"$ref": "#/$defs/x"}, {"description": "says nothing"}], "$defs": {"x": INTEGER}, "not": False},
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": None, "title": "A"},
        {"type": "string", "enum": ["a", "b"]},
        {"type": "string", "format": "date"},
        True,
    ],
)
def test_what_it_reads_or_asks_for_nothing_passes(schema):
    check_keywords(schema, "json_schema")
