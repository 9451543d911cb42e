"""Every argument and every route of SGLang is classified once, and what is refused is refused by name."""

import argparse
import dataclasses
from collections import Counter
from typing import get_args

import pytest

from sgl_proxythinker.config import Dtype, LoadFormat
from sgl_proxythinker.policy import routes
from sgl_proxythinker.policy import server_arguments as arguments
from sgl_proxythinker.policy.routes import classify, refusal
from sgl_proxythinker.policy.server_arguments import (
    ARGUED,
    IRRELEVANT,
    LIMITS,
    TESTED,
    Verdict,
    check_arguments,
    flag,
    verdict,
)
from upstream_sources import declared_arguments, declared_routes, of_what_is_imported

REFUSALS = {field: refused for refused in arguments.REFUSED for field in refused.fields.split()}
REFUSED_ROUTES = {route: refused for refused in routes.REFUSED for route in refused.routes.split()}

# Registered only when asked for: the mount by --enable-metrics, the other by DUMPER_SERVER_PORT=reuse.
CONDITIONAL_ROUTES = {"/metrics", "/dumper/{method}"}
# FastAPI adds them to every application.
DOCUMENTATION = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}

pytestmark = pytest.mark.usefixtures("sglang")


def names(table):
    return [name for group in table.values() for name in group.split()]


def repeated(listed):
    return [name for name, count in Counter(listed).items() if count > 1]


@pytest.fixture(scope="module")
def server_args_class():
    return pytest.importorskip("sglang.srt.server_args").ServerArgs


@pytest.fixture(scope="module")
def defaults(server_args_class):
    return {
        field.name: field.default_factory() if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(server_args_class)
        if not (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)
    }


@pytest.fixture(scope="module")
def parser(server_args_class):
    parser = argparse.ArgumentParser()
    server_args_class.add_cli_args(parser)
    return parser


@pytest.fixture(scope="module")
def app_routes():
    torch = pytest.importorskip("torch")
    pytest.importorskip("sglang")
    if not torch.cuda.is_available():
        from sgl_proxythinker.launch import cpu

        cpu.install()
    from sglang.srt.entrypoints.http_server import app

    return {route.path for route in flat(app.routes)}


def flat(found):
    """FastAPI keeps an included router as one entry without a path."""
    for route in found:
        if hasattr(route, "original_router"):
            yield from flat(route.original_router.routes)
        else:
            yield route


class TestArguments:
    def test_no_field_is_classified_twice(self):
        refused = [field for refusal in arguments.REFUSED for field in refusal.fields.split()]
        assert repeated([*names(TESTED), *names(ARGUED), *names(IRRELEVANT), *refused]) == []

    @pytest.mark.sources
    def test_every_field_is_classified_and_no_entry_is_stale(self):
        fields = declared_arguments()
        classified = {*names(TESTED), *names(ARGUED), *names(IRRELEVANT), *REFUSALS}
        assert not (new := fields - classified), f"new in SGLang: what do they do to three models? {sorted(new)}"
        assert not (gone := classified - fields), f"gone from SGLang: delete them here: {sorted(gone)}"

    def test_the_defaults_are_accepted(self, defaults):
        check_arguments(defaults, defaults)

    def test_a_bare_command_line_is_accepted(self, parser, defaults):
        check_arguments(vars(parser.parse_args(["--model-path", "base"])), defaults)

    @pytest.mark.parametrize("field", [*names(TESTED), *names(ARGUED), *names(IRRELEVANT)])
    def test_what_works_or_does_not_matter_is_accepted(self, field):
        values = LIMITS[field].allowed if field in LIMITS else ["anything"]
        for value in values:
            check_arguments({field: value}, {field: None})

    @pytest.mark.parametrize("field", REFUSALS)
    def test_what_is_refused_is_refused_by_its_flag_with_a_reason_and_a_way_out(self, field):
        with pytest.raises(ValueError) as error:
            check_arguments({field: "something"}, {field: None})
        message = str(error.value)
        assert f"{flag(field)} something: {REFUSALS[field].why} {REFUSALS[field].instead}" in message

    @pytest.mark.parametrize("field", [field for field, refused in REFUSALS.items() if refused.allowed])
    def test_a_refused_feature_may_be_named_to_leave_it_off(self, field):
        for value in REFUSALS[field].allowed:
            check_arguments({field: value}, {field: None})

    @pytest.mark.parametrize("field", LIMITS)
    def test_a_limited_field_is_refused_beyond_the_values_that_were_tried(self, field):
        with pytest.raises(ValueError) as error:
            check_arguments({field: "something"}, {field: None})
        message = str(error.value)
        assert f"{flag(field)} something: {LIMITS[field].why}" in message
        assert all(str(value) in message for value in LIMITS[field].allowed)

    @pytest.mark.parametrize("field", LIMITS)
    def test_limits_are_of_working_fields_and_within_sglangs_own_choices(self, field, parser):
        assert verdict(field) is Verdict.WORKS
        choices = next(action.choices for action in parser._actions if action.dest == field)
        assert choices is None or set(LIMITS[field].allowed) <= set(choices)

    def test_a_field_that_nobody_has_classified_is_refused(self):
        assert verdict("added_in_the_next_release") is None
        with pytest.raises(ValueError, match="--added-in-the-next-release 7: It is not classified"):
            check_arguments({"added_in_the_next_release": 7}, {"added_in_the_next_release": 0})

    def test_every_problem_is_named_at_once(self):
        given = {"dp_size": 2, "enable_lora": True, "attention_backend": "fa4", "port": 1}
        with pytest.raises(ValueError) as error:
            check_arguments(given, {"dp_size": 1})
        _, *problems = str(error.value).splitlines()
        assert [problem.split(":")[0].strip() for problem in problems] == [
            "--dp-size 2",
            "--enable-lora",
            "--attention-backend fa4",
        ]

    def test_flags_are_the_ones_of_sglangs_command_line(self, parser):
        options = {}
        for action in parser._actions:
            options.setdefault(action.dest, set()).update(action.option_strings)
        named = {*REFUSALS, *LIMITS} & options.keys()  # the rest has no flag
        assert [field for field in named if flag(field) not in options[field]] == []


class TestRoutes:
    def test_no_route_is_classified_twice(self):
        refused = [route for refusal in routes.REFUSED for route in refusal.routes.split()]
        assert repeated([*names(routes.WORKS), *names(routes.IRRELEVANT), *refused]) == []

    @pytest.mark.sources
    def test_every_route_is_classified_and_no_entry_is_stale(self):
        found = declared_routes() | DOCUMENTATION
        classified = {*names(routes.WORKS), *names(routes.IRRELEVANT), *REFUSED_ROUTES}
        assert not (new := found - classified), f"new in SGLang: which models answer there? {sorted(new)}"
        assert not (gone := classified - found - CONDITIONAL_ROUTES), (
            f"gone from SGLang: delete them here: {sorted(gone)}"
        )

    @of_what_is_imported
    def test_the_source_text_has_the_routes_of_the_application(self, app_routes):
        assert declared_routes() | DOCUMENTATION | CONDITIONAL_ROUTES == app_routes | CONDITIONAL_ROUTES

    @pytest.mark.parametrize("route", [*names(routes.WORKS), *names(routes.IRRELEVANT)])
    def test_what_works_or_does_not_matter_is_answered(self, route):
        assert refusal(route) is None

    @pytest.mark.parametrize("route", REFUSED_ROUTES)
    def test_what_is_refused_is_refused_by_its_path_with_a_reason_and_a_way_out(self, route):
        assert classify(route) is Verdict.REFUSED
        sentence = refusal(route)
        assert sentence.startswith(route)
        assert sentence.endswith(f"{REFUSED_ROUTES[route].why} {REFUSED_ROUTES[route].instead}")

    @pytest.mark.parametrize("path", ["/v1/responses/r1", "/v1/responses/r1/cancel", "/dumper/configure"])
    def test_the_path_of_a_request_is_refused_like_its_route(self, path):
        assert refusal(path).startswith(path)
        assert "not classified" not in refusal(path)

    def test_a_models_name_may_hold_slashes(self):
        assert refusal("/v1/models/Qwen/Qwen2.5-VL-32B-Instruct") is None

    @pytest.mark.parametrize("path", ["/added_in_the_next_release", "/v1/responses/a/b", "/generate/more"])
    def test_a_path_that_nobody_has_classified_is_refused(self, path):
        assert classify(path) is None
        assert "not classified" in refusal(path)


def test_what_small_models_may_be_loaded_by_is_what_a_base_may_be(server_args_class):
    """Kills: a loader that was tried for the one and is refused for the other, or the reverse."""
    parser = argparse.ArgumentParser()
    server_args_class.add_cli_args(parser)
    [dtypes] = [action.choices for action in parser._actions if action.dest == "dtype"]
    assert set(get_args(Dtype)) == set(dtypes)
    assert set(get_args(LoadFormat)) == set(LIMITS["load_format"].allowed)


def test_what_is_refused_is_named_by_a_flag_that_there_is(server_args_class):
    """But for what no flag sets."""
    parser = argparse.ArgumentParser()
    server_args_class.add_cli_args(parser)
    flags = {option for action in parser._actions for option in action.option_strings}
    assert {name for name in map(flag, [*REFUSALS, *LIMITS]) if name not in flags} == {"uses_mamba_radix_cache"}
