"""What a chat asks for happens or is a 400: tools, template arguments, the assistant's last turn."""

import inspect
import json

import openai
import pytest
from PIL import Image

from servers import chat_messages
from sgl_proxythinker.programs.pictures import data_url
from sgl_proxythinker.requests.last_turn import check_last_turn, text_of
from sgl_proxythinker.requests.template_arguments import (
    RESERVED,
    check_template_arguments,
    renders_calls,
    renders_tools,
    words_of,
)
from sgl_proxythinker.requests.tools import as_object, check_calls, check_tools, messages_body_as_chat

HI = [{"role": "user", "content": "Hi"}]
PARAMETERS = {"properties": {"d": {"type": "integer"}}, "required": ["d"]}


def tool(name="f", **function):
    return {"type": "function", "function": {"name": name, "parameters": PARAMETERS, **function}}


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = [*HI, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "a", "content": "5"}]
PNG = {"type": "base64", "media_type": "image/png", "data": data_url(Image.new("RGB", (56, 56))).partition(",")[2]}
NAMED = {"type": "function", "function": {"name": "f"}}
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_vision_id %}1{% endif %}"


class TestTools:
    def check(self, body, template=True, parser="qwen25"):
        check_tools(body, template, parser)

    @pytest.mark.parametrize("choice", [None, "auto", "required", NAMED])
    def test_tools_pass_where_they_are_shown_and_read(self, choice):
        self.check({"tools": [tool(), tool("g")], "tool_choice": choice, "response_format": {"type": "text"}})

    @pytest.mark.parametrize("choice", [None, "auto", "required", NAMED])
    def test_tools_are_refused_where_they_would_not_be_seen_or_found(self, choice):
        body = {"tools": [tool()], "tool_choice": choice}
        with pytest.raises(ValueError, match="has no place for them"):
            self.check(body, template=False)
        with pytest.raises(ValueError, match="--tool-call-parser"):
            self.check(body, parser=None)

    def test_no_tools_are_no_wish(self):
        for body in (
            {},
            {"tools": []},
            {"tools": None, "tool_choice": "auto"},
            {"tools": [tool()], "tool_choice": "none"},
        ):
            self.check(body, template=False, parser=None)

    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            ({"tool_choice": "required"}, "tools. is empty"),
            ({"tool_choice": NAMED}, "tools. is empty"),
            ({"tools": "f"}, "send a list"),
            ({"tools": [5]}, r"tools\[0\] is no function"),
            ({"tools": [tool(), {"type": "web_search"}]}, r"tools\[1\] is no function"),
            ({"tools": [{**tool(), "type": "custom"}]}, r"tools\[0\] is no function"),
            ({"tools": [tool("")]}, "send a name"),
            ({"tools": [tool(5)]}, "send a name"),
            ({"tools": [tool(), tool()]}, "two functions with the name 'f'"),
            ({"tools": [tool(parameters={"type": "array"})]}, "not the schema of an object"),
            ({"tools": [tool(parameters=[1])]}, "not the schema of an object"),
            ({"tools": [tool("g")], "tool_choice": NAMED}, "none of the tools: g"),
            ({"tools": [tool()], "tool_choice": "any"}, "tool_choice is 'any'"),
            ({"tools": [tool()], "tool_choice": {"type": "allowed_tools"}}, "tool_choice is"),
            ({"tools": [tool()], "response_format": {"type": "json_object"}}, "tools and response_format"),
            ({"tools": [tool()], "tool_choice": "required", "regex": "a"}, "tools and regex"),
            ({"tools": [tool()], "ebnf": "root ::= 'a'"}, "tools and ebnf"),
            ({"tools": [tool()], "parallel_tool_calls": False}, "parallel_tool_calls"),
            ({"messages": [{"role": "system", "tools": [tool()]}]}, "a message has tools"),
        ],
    )
    def test_what_is_refused(self, body, sentence):
        with pytest.raises(ValueError, match=sentence) as error:
            self.check(body)
        assert len(str(error.value)) < 1000

    def test_a_bound_on_calls_is_kept_where_one_is_asked_for(self):
        for choice in ("required", NAMED):
            self.check({"tools": [tool()], "tool_choice": choice, "parallel_tool_calls": False})

    def test_arguments_are_an_object(self):
        assert as_object(PARAMETERS) == {**PARAMETERS, "type": "object"}
        assert as_object(None) == {"type": "object", "properties": {}}

    def test_tools_of_messages_are_checked_as_those_of_chats(self):
        body = {"tools": [{"name": "f", "input_schema": PARAMETERS}], "tool_choice": {"type": "tool", "name": "f"}}
        assert messages_body_as_chat(body) == {"tools": [tool()], "tool_choice": NAMED}
        assert messages_body_as_chat({**body, "tool_choice": {"type": "any"}})["tool_choice"] == "required"
        with pytest.raises(ValueError, match="runs no tools of its own"):
            messages_body_as_chat({"tools": [{"type": "web_search_20250305", "name": "web_search"}]})
        with pytest.raises(ValueError, match="disable_parallel_tool_use"):
            messages_body_as_chat({**body, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}})


class TestTemplate:
    def test_a_template_that_writes_tools_is_found_by_rendering(self):
        assert renders_tools(lambda messages, tools: f"{messages}{tools}")
        assert not renders_tools(lambda messages, tools: str(messages))
        assert not renders_tools(lambda messages, tools: [][0])

    def test_a_template_that_writes_calls_is_found_by_rendering(self):
        assert renders_calls(lambda messages, tools: str(messages))
        assert not renders_calls(lambda messages, tools: str([message["content"] for message in messages]))
        assert renders_calls(lambda messages, tools: "" if messages[1]["content"] else str(messages)), "DeepSeek's way"
        assert renders_calls(lambda messages, tools: [][0]), "the template's own error is told"
        check_calls(CALLED, template_renders_calls=True)
        check_calls(HI, template_renders_calls=False)
        with pytest.raises(ValueError, match=r"messages\[1\].tool_calls"):
            check_calls(CALLED, template_renders_calls=False)

    def test_words_of_text_between_statements_are_not_read(self):
        assert {"messages", "add_vision_id", "content"} <= words_of(TEMPLATE + "enable_thinking {# effort #}")
        assert not {"enable_thinking", "effort"} & words_of(TEMPLATE + "enable_thinking {# effort #}")

    @pytest.mark.parametrize(
        "body",
        [
            {}, {"chat_template_kwargs": {"add_vision_id": True}}, {"chat_template_kwargs": {"enable_thinking": False}},
            {"chat_template_kwargs": {"spaces_between_special_tokens": False}}, {"reasoning_effort": "none"},
        ],
    )  # fmt: skip
    def test_what_is_read_or_asks_for_nothing_passes(self, body):
        check_template_arguments(body, TEMPLATE)

    @pytest.mark.parametrize(
        ("body", "name"),
        [
            ({"reasoning_effort": "low"}, "reasoning_effort"),
            ({"reasoning": {"effort": "high"}}, "reasoning_effort"),
            ({"reasoning_effort": 0.5}, "reasoning_effort"),
            ({"chat_template_kwargs": {"enable_thinking": True}}, "enable_thinking"),
            ({"chat_template_kwargs": {"add_vison_id": True}}, "add_vison_id"),
            ({"chat_template_kwargs": {"chat_template": "{% for i in range(10**9) %}{% endfor %}"}}, "chat_template"),
            ({"chat_template_kwargs": {"add_generation_prompt": False}}, "add_generation_prompt"),
            ({"chat_template_kwargs": {"tokenize": True}}, "tokenize"),
        ],
    )
    def test_what_would_be_lost_is_refused(self, body, name):
        with pytest.raises(ValueError, match=name):
            check_template_arguments(body, TEMPLATE)

    @pytest.mark.parametrize("fields", [{"chat_template_kwargs": {"add_vision_id": True}}, {"reasoning_effort": "low"}])
    def test_beside_ids_no_template_is_read(self, fields):
        """Kills: arguments that are taken and do nothing; and a refusal of those that SGLang reads itself."""
        template = TEMPLATE + "{{ reasoning_effort }}"
        check_template_arguments(fields, template)
        with pytest.raises(ValueError, match="and input_ids are both set"):
            check_template_arguments(fields | {"input_ids": [1, 2]}, template)
        own = {"spaces_between_special_tokens": False, "enable_thinking": False}
        check_template_arguments({"chat_template_kwargs": own, "input_ids": [1, 2]}, template)

    def test_a_template_that_reads_an_effort_is_given_one(self):
        check_template_arguments({"reasoning_effort": "low"}, "{{ reasoning_effort }}")
        check_template_arguments({"reasoning_effort": "low"}, "{{ enable_thinking }}")

    def test_every_parameter_of_apply_chat_template_is_reserved(self):
        transformers = pytest.importorskip("transformers")
        parameters = inspect.signature(transformers.PreTrainedTokenizerBase.apply_chat_template).parameters
        assert {*parameters} - {"self", "kwargs", "documents"} - RESERVED == set()


class TestLastTurn:
    def test_text_and_text_parts_are_continued(self):
        assert text_of("We") == "We"
        assert text_of([{"type": "text", "text": "We"}, {"type": "text", "text": "ll"}]) == "Well"
        check_last_turn({"messages": [*HI, {"role": "assistant", "content": "We"}], "continue_final_message": True})
        check_last_turn({"messages": HI, "continue_final_message": False, "add_generation_prompt": True})

    @pytest.mark.parametrize("content", [None, [], 5, [{"type": "image_url"}], [{"type": "text"}], ["a"]])
    def test_nothing_else_is(self, content):
        with pytest.raises(ValueError, match="continues text"):
            text_of(content)

    @pytest.mark.parametrize(
        "body",
        [
            {"messages": HI}, {"messages": []}, {"messages": HI, "input_ids": [5]}, {"messages": 5},
            {"messages": [{"role": "assistant", "content": "a"}], "add_generation_prompt": True},
            {"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]},
        ],
    )  # fmt: skip
    def test_a_turn_that_can_not_be_continued_is_refused(self, body):
        with pytest.raises(ValueError, match="continue_final_message"):
            check_last_turn({**body, "continue_final_message": True})


def ids(server, **body):
    answer = server.post("/v1/chat/completions", {"max_tokens": 1, "return_prompt_token_ids": True, **body})
    assert answer.ok, answer.text
    return answer.json()["choices"][0]["prompt_token_ids"]


def as_string(text):
    return text


def as_parts(text):
    return [{"type": "text", "text": text[:2]}, {"type": "text", "text": text[2:]}]


@pytest.mark.xdist_group("guided")
class TestServed:
    @pytest.mark.parametrize("content", [as_string, as_parts])
    def test_a_last_message_of_the_assistant_is_a_turn_of_the_assistant(self, guided, reference, content):
        messages = [*HI, {"role": "assistant", "content": "Well, no"}]
        expected = reference.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        sent = [*HI, {"role": "assistant", "content": content("Well, no")}]
        assert ids(guided, messages=sent) == expected
        assert guided.post("/tokenize", {"messages": sent}).json()["tokens"] == expected
        answer = guided.post("/v1/messages", {"model": "m", "max_tokens": 1, "messages": sent})
        assert answer.json()["usage"]["input_tokens"] == len(expected)

    @pytest.mark.parametrize("content", [as_string, as_parts])
    def test_a_last_message_is_continued(self, guided, reference, content):
        before = reference.tokenizer.apply_chat_template(HI, add_generation_prompt=True, return_dict=False)
        expected = before + reference.tokenizer.encode("Well, no")
        sent = [*HI, {"role": "assistant", "content": content("Well, no")}]
        assert ids(guided, messages=sent, continue_final_message=True) == expected

    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            ({"continue_final_message": True}, "last message is from 'user'"),
            ({"reasoning_effort": "high"}, "reasoning_effort"),
            ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs has chat_template"),
            ({"messages": CALLED}, "messages[1].tool_calls can't be used here"),
            ({"tools": [tool()]}, "no place for them"),
            ({"tools": [tool()], "tool_choice": NAMED}, "no place for them"),
            ({"tools": [tool()], "tool_choice": "required", "stream": True}, "no place for them"),
        ],
    )
    def test_a_lost_wish_is_a_400(self, guided, body, sentence):
        for route in ("/v1/chat/completions", "/tokenize"):
            sent = {name: value for name, value in body.items() if name != "stream" or "chat" in route}
            response = guided.post(route, {"messages": HI, **sent})
            assert response.status_code == 400 and sentence in response.text, response.text
            assert len(response.json()["message"]) < 1000

    def test_tools_of_messages_are_a_400(self, guided):
        tools = [{"name": "f", "input_schema": PARAMETERS}]
        for stream in (False, True):
            body = {"model": "m", "max_tokens": 2, "messages": HI, "tools": tools, "stream": stream}
            response = guided.post("/v1/messages", body)
            assert response.status_code == 400 and "no place for them" in response.text, response.text

    def test_tools_that_may_not_be_called_are_left_out(self, guided):
        assert ids(guided, messages=HI, tools=[tool()], tool_choice="none") == ids(guided, messages=HI)


@pytest.mark.xdist_group("with_tools")
class TestCalls:
    def ask(self, server, seed=3, **options):
        small = tool(
            parameters={"properties": {"d": {"enum": [1, 2]}}, "required": ["d"], "additionalProperties": False}
        )
        options = {"tools": [small, {**small, "function": {**small["function"], "name": "g"}}], **options}
        return server.openai.chat.completions.create(
            model="default", messages=HI, max_tokens=400, temperature=1, seed=seed, **options
        )

    @pytest.mark.parametrize("seed", [1, 2, 3])
    @pytest.mark.parametrize(("choice", "names"), [(NAMED, {"f"}), ("required", {"f", "g"})])
    def test_a_call_that_is_asked_for_comes(self, with_tools, choice, names, seed):
        choice_of = self.ask(with_tools, seed, tool_choice=choice, parallel_tool_calls=False).choices[0]
        [call] = choice_of.message.tool_calls
        assert choice_of.finish_reason == "tool_calls" and call.function.name in names
        assert json.loads(call.function.arguments) in ({"d": 1}, {"d": 2})

    def test_it_comes_in_a_stream_too(self, with_tools):
        chunks = list(self.ask(with_tools, tool_choice=NAMED, parallel_tool_calls=False, stream=True))
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        calls = [call for delta in deltas for call in delta.tool_calls or []]
        assert [call.function.name for call in calls if call.function.name] == ["f"]
        assert json.loads("".join(call.function.arguments or "" for call in calls)) in ({"d": 1}, {"d": 2})
        assert "".join(delta.content or "" for delta in deltas) == ""
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "tool_calls"

    def test_messages_force_a_call_too(self, with_tools):
        tools = [{"name": "f", "input_schema": {"properties": {"d": {"enum": [1]}}, "additionalProperties": False}}]
        body = {"model": "m", "max_tokens": 400, "messages": HI, "tools": tools, "tool_choice": {"type": "any"}}
        answer = with_tools.post("/v1/messages", body).json()
        assert {block["type"] for block in answer["content"]} == {"tool_use"} and answer["stop_reason"] == "tool_use"

    def test_the_model_sees_the_tools(self, with_tools):
        seen, unseen = (ids(with_tools, messages=HI, tools=[tool()], tool_choice=choice) for choice in ("auto", "none"))
        assert len(seen) > len(unseen) == len(ids(with_tools, messages=HI))

    def test_an_image_for_a_template_of_texts_is_a_400(self, with_tools):
        picture = chat_messages("What?", [Image.new("RGB", (56, 56))])
        for route in ("/v1/chat/completions", "/v1/messages/count_tokens"):
            content = picture if "chat" in route else [{"role": "user", "content": [{"type": "image", "source": PNG}]}]
            response = with_tools.post(route, {"model": "m", "messages": content, "max_tokens": 2})
            assert response.status_code == 400 and "1 images, and the chat template takes texts only" in response.text
        parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
        assert ids(with_tools, messages=parts) == ids(with_tools, messages=HI)

    def test_one_form_of_an_answer_or_the_other(self, with_tools):
        with pytest.raises(openai.BadRequestError, match="tools and response_format can"):
            self.ask(with_tools, tool_choice="required", response_format={"type": "json_object"})
        assert self.ask(with_tools, tool_choice="none", response_format={"type": "json_object"})
