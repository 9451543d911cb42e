"""Every field of an HTTP body is classified once, and one that would be lost is refused by name."""

import pkgutil
from collections import Counter

import pytest
from pydantic import BaseModel

from sgl_proxythinker.policy.body_fields import (
    BODIES,
    CHAT,
    COMPLETION,
    MESSAGES,
    OLLAMA_OPTIONS,
    Body,
    Refusal,
    check_body,
)
from upstream_sources import declared_fields

TABLES = {body.declared_by.partition(":")[2] or "options": body for body in (*BODIES.values(), OLLAMA_OPTIONS)}
DECLARED = {name: body for name, body in TABLES.items() if body.declared_by}
REFUSED = [
    pytest.param(body, refusal, field, id=f"{name}-{field}")
    for name, body in TABLES.items()
    for refusal in body.refused
    for field in refusal.fields.split()
]


def listed(body):
    refused = " ".join(refusal.fields for refusal in body.refused)
    return f"{body.works} {body.harmless} {refused}".split()


def declared(body) -> dict:
    """Every field that SGLang declares for a body, with its default."""
    model: type[BaseModel] = pkgutil.resolve_name(body.declared_by)
    return {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()}


@pytest.mark.parametrize("name", TABLES)
def test_no_field_is_classified_twice(name):
    assert [field for field, count in Counter(listed(TABLES[name])).items() if count > 1] == []


@pytest.mark.sources
@pytest.mark.parametrize("name", DECLARED)
def test_every_field_is_classified_and_no_entry_is_stale(name):
    fields, classified = declared_fields(TABLES[name].declared_by), set(listed(TABLES[name]))
    assert not (new := fields - classified), f"new in SGLang: is it obeyed? {sorted(new)}"
    assert not (gone := classified - fields), f"gone from SGLang: delete them here: {sorted(gone)}"


@pytest.mark.parametrize("name", DECLARED)
def test_a_body_of_defaults_is_accepted_as_routers_send_it(name, sglang):
    defaults = declared(TABLES[name])
    check_body(defaults, TABLES[name], defaults, is_guided=True)
    check_body(dict.fromkeys(defaults), TABLES[name], defaults, is_guided=True)


@pytest.mark.parametrize("name", TABLES)
def test_what_works_or_does_not_matter_is_accepted(name):
    body = TABLES[name]
    fields = f"{body.works} {body.harmless}".split()
    check_body(dict.fromkeys(fields, "anything"), body, dict.fromkeys(fields), is_guided=True)


@pytest.mark.parametrize(("body", "refusal", "field"), REFUSED)
def test_what_is_refused_is_refused_by_its_name_with_a_reason_and_a_way_out(body, refusal, field):
    with pytest.raises(ValueError) as error:
        check_body({field: "something"}, body, {field: None}, is_guided=True)
    sentence = str(error.value)
    assert sentence == f"{field} can't be used here: {refusal.why}; {refusal.instead}."
    assert len(sentence) < 1000
    for value in (None, [], {}, *refusal.allowed):
        check_body({field: value}, body, {field: None}, is_guided=True)


@pytest.mark.parametrize("value", [1, True, "x", [0], {"a": None}, 0, 0.0])
def test_set_means_that_it_differs_from_the_default(value):
    body = Body("", "", "", (Refusal("it is lost", "leave it out", "wish"),))
    check_body({"wish": value}, body, {"wish": value}, is_guided=True)
    with pytest.raises(ValueError, match="wish can't be used here"):
        check_body({"wish": value}, body, {"wish": None}, is_guided=True)


def test_one_is_not_true():
    with pytest.raises(ValueError, match="best_of"):
        check_body({"best_of": True}, COMPLETION, {"best_of": None}, is_guided=True)


def test_a_field_that_nobody_has_classified_is_refused_where_sglang_declares_it():
    body = {"added_in_the_next_release": 7}
    with pytest.raises(ValueError, match="added_in_the_next_release can't be used here: it is not classified"):
        check_body(body, CHAT, {"added_in_the_next_release": None}, is_guided=True)
    check_body(body, CHAT, {}, is_guided=True)


def test_the_base_alone_takes_what_only_guidance_forbids():
    sent, defaults = {"return_hidden_states": True}, {"return_hidden_states": False}
    check_body(sent, CHAT, defaults, is_guided=False)
    with pytest.raises(ValueError, match="return_hidden_states"):
        check_body(sent, CHAT, defaults, is_guided=True)
    with pytest.raises(ValueError, match="bootstrap_room"):
        check_body({"bootstrap_room": 7}, CHAT, {"bootstrap_room": None}, is_guided=False)


def test_a_budget_for_thinking_is_refused():
    with pytest.raises(ValueError, match="thinking can't be used here"):
        check_body({"thinking": {"type": "enabled", "budget_tokens": 2048}}, MESSAGES, {"thinking": None}, True)
