"""Requests that ended, stalled or misled a server elsewhere: here each is a 400 of one sentence, and hurts nobody.

The rows are the cases of public reports that docs/requests.md names. Each is sent at alpha 0.5 and 0, guided and plain,
beside a stream whose tokens must not change.
"""

import json
import threading
from contextlib import ExitStack

import pytest
import requests

from neighbours import neighbour
from servers import chat_messages

GREEDY = {"temperature": 0, "max_new_tokens": 4}
HI = chat_messages("Hi")

GENERATE = {
    "bias_null": {"logit_bias": {"5": None}},
    "bias_text": {"logit_bias": {"5": "x"}},
    "bias_list": {"logit_bias": [5]},
    "bias_unknown_id": {"logit_bias": {"448": 1}},
    "bias_overflow": {"logit_bias": {"5": -1e308}},
    "stop_id_negative": {"stop_token_ids": [-1], "min_new_tokens": 2},
    "stop_id_huge": {"stop_token_ids": [2**63], "min_new_tokens": 2},
    "stop_id_unknown": {"stop_token_ids": [360]},
    "stop_id_number": {"stop_token_ids": 5},
    "stop_id_text": {"stop_token_ids": ["5"]},
    "stop_id_bool": {"stop_token_ids": [True]},
    "n_huge": {"n": 10_000},
    "n_fraction": {"n": 1.5},
    "n_text": {"n": "2"},
    "n_zero": {"n": 0},
    "n_negative": {"n": -1},
    "special_text": {"skip_special_tokens": "no"},
    "special_number": {"skip_special_tokens": 5},
    "tokens_fraction": {"max_new_tokens": 1.5},
    "tokens_text": {"max_new_tokens": "3"},
    "regex_list": {"regex": ["a"]},
    "internal": {"is_normalized": True},
    "temperature_infinite_in_float32": {"temperature": 1e39},
    "temperature_text": {"temperature": "1"},
    "repetition_to_nothing": {"repetition_penalty": 1e-46},
    "stop_number": {"stop": 5},
    "stop_nested": {"stop_token_ids": [[5]]},
    "openai_name": {"max_tokens": 3},
    "unknown_name": {"beam_width": 3},
    "strength_unwrapped": {"proxy_alpha": 3},
    "wish_of_nobody": {"custom_params": {"alpha": 3}},
    "nothing_left_to_draw": {"regex": "ab", "min_new_tokens": 5, "temperature": 1},
    "schema_deep": {"json_schema": '{"type":"array","items":' * 1000 + '{"type":"integer"}' + "}" * 1000},
}
BODIES = {
    "no_tokens": {"input_ids": [[]]},
    "no_tokens_in_a_batch": {"input_ids": [[], [5]]},
    "two_prompts": {"text": "Hi", "input_ids": [5]},
    "labels": {"text": "Hi", "custom_labels": {"a": "b"}},
    "received": {"text": "Hi", "received_time": 1e308},
    "bootstrap": {"text": "Hi", "bootstrap_room": 7, "bootstrap_host": "x"},
    "ipc": {"text": "Hi", "http_worker_ipc": "ipc:///dev/null"},
    "hashes": {"text": "Hi", "mm_hashes": ["00ff"]},
    "top_negative": {"text": "Hi", "return_logprob": True, "top_logprobs_num": -1},
    "top_too_many": {"text": "Hi", "return_logprob": True, "top_logprobs_num": 361},
    "key_list": {"text": "Hi", "extra_key": ["a"]},
    "rid_empty_list": {"text": "Hi", "rid": []},
    "rid_list": {"text": "Hi", "rid": ["a", "b"]},
    "batch_mismatch": {"text": ["a", "b"], "sampling_params": [GREEDY]},
    "top_level": {"text": "Hi", "custom_params": {"proxy_alpha": 3}},
    "params_list": {"text": "Hi", "sampling_params": []},
    "logprob_text": {"text": "Hi", "return_logprob": "yes"},
    "stream_text": {"text": "Hi", "stream": "true"},
}
CHATS = {
    "bias_overflow": {"logit_bias": {"5": 1e39}},
    "stop_id_of_qwen": {"stop_token_ids": [151645], "min_tokens": 1},
    "n_zero": {"n": 0},
    "n_zero_stream": {"n": 0, "stream": True, "stream_options": {"include_usage": True}},
    "top_negative": {"logprobs": True, "top_logprobs": -5},
    "seed": {"seed": 2**63},
    "temperature": {"temperature": 1e39},
    "tokens": {"max_tokens": 10**30},
    "at_the_top": {"proxy_alpha": 3},
    "extra_body": {"extra_body": {"custom_params": {"proxy_alpha": 3}}},
    "metadata": {"metadata": {"proxy_alpha": "3"}},
    "template": {"chat_template_kwargs": {"proxy_alpha": 3}},
    "sampling_params": {"sampling_params": {"custom_params": {"proxy_alpha": 3}}},
    "provider": {"provider_options": {"openai": {"proxyAlpha": 3}}},
    "config": {"config": {"proxy_alpha": 3}},
    "query": {"extra_query": {"proxy_alpha": 3}},
    "text_of_json": {"extra_body": '{"proxy_alpha": 3}'},
    "stream_text": {"stream": "true"},
    "temperature_text": {"temperature": "0"},
    "bias_text": {"logit_bias": {"5": "1"}},
    "usage_text": {"stream": True, "stream_options": {"include_usage": "yes"}},
    "camel": {"customParams": {"proxy_alpha": 3}},
    "camel_other": {"customParams": {"x": 3}},
    "misspelt": {"custom_params": {"alpha": 3}},
    "hyphen": {"proxy-alpha": 3},
    "salt": {"cache_salt": ["a", "b"]},
    "part": {"messages": [{"role": "user", "content": [{"type": "input_image", "image_url": "A" * 200_000}]}]},
    "image": {"messages": [{"role": "user", "content": [{"type": "image", "image": "A" * 200_000}]}]},
    "url_text": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "A" * 200_000}]}]},
    "no_content": {"messages": [{"role": "user"}]},
    "number": {"messages": [{"role": "user", "content": 5}]},
    "role": {"messages": [{"role": "boss", "content": "Hi"}]},
    "bad_schema": {
        "stream": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nope"}}},
    },
}  # fmt: skip


LONG = "x" * 500_000
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": f'{{"a": "{LONG}"}}'}}
LONG_TEXTS = {
    "system": ("/v1/messages", {"system": LONG}),
    "parts of system": ("/v1/messages", {"system": [{"type": "text", "text": LONG}]}),
    "system, counted": ("/v1/messages/count_tokens", {"system": LONG}),
    "a result": ("/v1/messages", {"messages": [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": LONG}]}]}),
    "a source": ("/v1/messages/count_tokens", {"messages": [
        {"role": "user", "content": [{"type": "search_result", "source": LONG, "title": "x", "content": []}]}]}),
    "a call": ("/v1/chat/completions", {"messages": [*HI, {"role": "assistant", "content": "", "tool_calls": [CALL]}]}),
    "thoughts": ("/v1/chat/completions", {"messages": [
        *HI, {"role": "assistant", "content": "a", "reasoning_content": LONG}, *HI]}),
    "arguments": ("/v1/chat/completions", {"chat_template_kwargs": {"date_string": LONG}}),
    "no picture": ("/v1/messages/count_tokens", {"messages": [
        *HI, {"role": "assistant", "content": [
            {"type": "tool_use", "id": "a", "name": "f", "input": {"type": "image", "source": LONG}}]}]}),
    "a name": ("/v1/messages/count_tokens", {"messages": [
        *HI, {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {LONG: 1}}]}]}),
    "numbers": ("/tokenize", {"messages": HI, "chat_template_kwargs": {"documents": [0.1234567] * 20_000}}),
}  # fmt: skip
TOOL_SCHEMAS = {
    "a pattern": {"properties": {"a": {"type": "string", "pattern": "(?i)[!-\uffff]"}}},
    "a long pattern": {"properties": {"a": {"type": "string", "pattern": "a" * 1001}}},
    "long patterns": {"patternProperties": {f"{'a' * 900}{number}": {} for number in range(20)}},
    "an escaped end": {"properties": {"a": {"pattern": r"(?i)[!-\N{TAG SPACE}]"}}},
    "a large number": {"properties": {"a": {"pattern": "a{99999999999}"}}},
    "true and false": {"properties": {f"a{number}": number % 2 == 0 for number in range(5000)}},
    "names by pattern": {"patternProperties": {"(?i)[!-\uffff]": {}}},
    "many": {"anyOf": [{"anyOf": [{}] * 1000}] * 5},
    "a list": {"required": [1, "a"] * 600},
    "lists": {"anyOf": [{"required": ["a"] * 1000}] * 9},
}
SCHEMA_OF_NUMBERS = {"type": "json_schema", "schema": {"properties": {"strict": 5}}}
DEEP = [["x"]]
for _ in range(300):
    DEEP = [DEEP]
SYSTEM = [{"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x.png"}}]
RESULT = {"type": "tool_result", "tool_use_id": "a"}
ODD_RESULTS = [
    ("user", RESULT | {"content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}]}),
    (
        "assistant",
        RESULT | {"content": [{"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x.png"}}]},
    ),
]
LONELY = [{"role": "assistant", "content": "x"}]
TRACE = {"custom_params": {"proxy_trace": True}}
THOUGHT = [{"type": "thinking", "thinking": "Hm.", "signature": ""}]
REFERENCE = [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "tool_reference", "tool_name": "f"}]}]
ODD = [
    ("/v1/messages", {"model": "m", "max_tokens": 2, "messages": HI, "system": SYSTEM}),
    *(
        ("/v1/messages", {"model": "m", "max_tokens": 2, "messages": [{"role": role, "content": [part]}]})
        for role, part in ODD_RESULTS
    ),
    ("/v1/completions", {"model": "m", "prompt": "Hi", "max_tokens": 2, "echo": True, "logprobs": 0}),
    ("/v1/chat/completions", {"model": "m", "input_ids": [1, 2], "messages": HI, "reasoning_effort": "high"}),
    ("/v1/completions", {"model": "m", "prompt": "Hi", "max_tokens": 2, **TRACE}),
    ("/v1/chat/completions", {"model": "m", "messages": HI, "max_tokens": 2, **TRACE}),
    ("/v1/chat/completions", {"model": "m", "messages": LONELY, "max_tokens": 2, "continue_final_message": True}),
    ("/tokenize", {"messages": LONELY, "continue_final_message": True}),
    ("/generate", {"text": "a", "image_data": DEEP}),
    ("/vertex_generate", {"instances": [{"text": "a", "image_data": DEEP}]}),
    ("/v1/messages/count_tokens", {"model": "m", "messages": []}),
    ("/vertex_generate", {"instances": [{}]}),
    ("/vertex_generate", {"instances": [{"text": "Hi"}], "parameters": {"custom_params": {}}}),
    ("/generate", {"text": ["Look", "What?"], "modalities": ["b"]}),
    ("/v1/completions", {"prompt": ["Hi"], "cache_salt": ["a"]}),
    ("/separate_reasoning", {"reasoning_parser": "nope", "text": "a"}),
    ("/parse_function_call", {"text": ""}),
    ("/invocations", {"messages": HI, "response_format": [[]]}),
    ("/v1/chat/completions", {"model": "m", "messages": HI, "response_format": "json"}),
    ("/v1/chat/completions", {"model": "m", "messages": HI, "response_format": SCHEMA_OF_NUMBERS}),
    ("/v1/chat/completions", {"model": "m", "messages": HI, "stream": True, "regex": "("}),
    ("/v1/chat/completions", {"model": "m", "messages": HI, "chat_template_kwargs": {"messages": []}}),
    ("/v1/chat/completions", {"model": "m", "messages": HI, "chat_template_kwargs": {"chat_template": "{{ 7 * 7 }}"}}),
    ("/detokenize", {"tokens": [2**63]}),
    ("/tokenize", {"messages": HI, "stream": True}),
    ("/tokenize", {"prompt": "x" * 500_000}),
    ("/api/generate", {"model": "m", "prompt": "Hi", "options": {"num_predict": -3}}),
    ("/api/generate", {"model": "m", "prompt": "Hi", "options": {"seed": 3}}),
    ("/api/show", {}),
    ("/v1/messages/count_tokens", {"model": "m", "messages": [{"role": "user", "content": []}]}),
    ("/v1/messages/count_tokens", {"model": "m", "messages": [{"role": "user", "content": THOUGHT}]}),
    ("/v1/messages", {"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": REFERENCE}]}),
    ("/v1/completions", {"prompt": [True], "max_tokens": 2}),
    ("/generate", {"text": "Hi", "sampling_params": {"structural_tag": "[1]"}}),
]
PATTERNS = {"allOf": [{"type": "string", "pattern": f".*a.{{{many}}}b.*"} for many in range(20)]}
SLOW = {"multiples": {"type": "integer", "multipleOf": 999_983}, "patterns": PATTERNS}


def assert_one_sentence(response, status=400):
    assert response.status_code == status, response.text[:500]
    body = response.json()
    error = body["error"] if "error" in body else body
    sentence = error["message"]
    assert 0 < len(sentence) < 1000 and "\n" not in sentence, sentence
    for told in ("site-packages", "0x", "Traceback", "base64", "AAAAAAAA", "http_server.py"):
        assert told not in response.text, response.text[:500]
    assert len(response.content) < 3000
    return sentence


class Refused:
    """Every row, on one server."""

    @pytest.fixture(autouse=True, scope="class")
    def beside(self, server, neighbours):
        """Streams while all of these are sent, whose tokens are compared with those that they have alone."""
        with ExitStack() as stack:
            for alpha in neighbours:
                stack.enter_context(neighbour(server, alpha, tokens=200))
            yield

    @pytest.mark.parametrize("alpha", [0.5, 0])
    @pytest.mark.parametrize("name", GENERATE)
    def test_sampling_params(self, server, name, alpha):
        params = {**GREEDY, "custom_params": {"proxy_alpha": alpha}, **GENERATE[name]}
        assert_one_sentence(server.post("/generate", {"text": "Hi", "sampling_params": params}))

    @pytest.mark.parametrize("alpha", [0.5, 0])
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("name", BODIES)
    def test_generate(self, server, name, stream, alpha):
        params = {**GREEDY, "custom_params": {"proxy_alpha": alpha}}
        body = {"sampling_params": params, "stream": stream, **BODIES[name]}
        assert_one_sentence(server.post("/generate", body))

    @pytest.mark.parametrize("alpha", [0.5, 0])
    @pytest.mark.parametrize("name", CHATS)
    def test_chat(self, server, name, alpha):
        strength = {"custom_params": {"proxy_alpha": alpha}}
        body = {"model": "m", "messages": HI, "max_tokens": 4, **strength, **CHATS[name]}
        assert_one_sentence(server.post("/v1/chat/completions", body))

    @pytest.mark.parametrize(
        "route", ["/v1/chat/completions", "/generate", "/v1/completions", "/v1/messages", "/api/generate"]
    )
    @pytest.mark.parametrize("text", ["[]", '"x"', "5", "null", "true", "{", ""])
    def test_a_body_that_is_no_object(self, server, route, text):
        headers = {"Content-Type": "application/json"}
        response = requests.post(server.url + route, data=text, headers=headers, timeout=60)
        assert_one_sentence(response)

    @pytest.mark.parametrize("tokens", [[-1], [360], [2**70], ["x"], [1.5], [True]])
    def test_ids_that_the_tokenizer_does_not_know(self, server, tokens):
        assert_one_sentence(server.post("/detokenize", {"tokens": tokens}))

    @pytest.mark.parametrize("place", LONG_TEXTS)
    def test_a_text_that_goes_into_a_prompt_is_counted_wherever_it_stands(self, server, place):
        """Kills: minutes and gigabytes in the event loop before anybody looks at a length."""
        route, fields = LONG_TEXTS[place]
        body = {"model": "m", "max_tokens": 2, "messages": HI} | fields
        if not route.startswith("/v1/chat") and route != "/v1/messages":
            del body["max_tokens"]
        answer = server.post(route, body)
        assert_one_sentence(answer)
        assert "characters with all that goes into their prompt" in answer.text

    @pytest.mark.parametrize("params", [
        {"stop_regex": [r"(?i)[\s\S]*x"]},
        {"stop_regex": "(?si-u:[!-\U0001ffff])"},
        {"stop_regex": "(?ix)[a- \U0010ffff]"},
        {"stop_regex": r"(?i)[\w&&\w]"},
        {"stop_regex": r"(?i)[[:^ascii:]]"},
        {"stop_regex": r"(?i)\P{L}"},
    ], ids=["class", "range", "blanks", "operators", "named", "property"])  # fmt: skip
    def test_patterns_that_take_long_to_build(self, server, params):
        """Kills: seconds of the event loop, and of the scheduler, for each prompt of a request."""
        answer = server.post("/generate", {"text": "Hi", "sampling_params": params})
        assert_one_sentence(answer)
        assert "which takes long to build" in answer.text

    @pytest.mark.parametrize(("prompts", "samples"), [(129, 1), (2, 65), (1, 1000)])
    def test_patterns_of_a_request_are_counted_before_one_is_built(self, server, prompts, samples):
        """Kills: seconds for each of thousands, of a request that is refused anyhow."""
        params = {"stop_regex": ["("] * 4, "n": samples}
        body = {"text": ["Hi"] * prompts, "sampling_params": [params] * prompts}
        if prompts == 1:  # lists that don't fit the prompts are told later
            body = {"text": "Hi", "sampling_params": [{"stop_regex": "("}] * samples}
        answer = server.post("/generate", body)
        assert_one_sentence(answer)
        assert "patterns of stop_regex, and 512 are the most" in answer.text

    @pytest.mark.parametrize("schema", TOOL_SCHEMAS)
    def test_schemas_of_tools_that_take_long_to_look_at(self, server, schema):
        """Kills: minutes of the event loop, tools that are asked not to be used among them."""
        parameters = {"type": "object"} | TOOL_SCHEMAS[schema]
        tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
        answer = server.post("/tokenize", {"messages": HI, "tools": tools, "tool_choice": "none"})
        assert_one_sentence(answer)
        assert "tools have" in answer.text

    @pytest.mark.parametrize("sequences", [1, 2])
    def test_more_ids_than_a_prompt_may_have_characters(self, server, sequences):
        """Kills: minutes of the event loop for one request that runs no model."""
        ids = [0] * (500_000 // sequences)
        answer = server.post("/detokenize", {"tokens": ids if sequences == 1 else [ids] * sequences})
        assert_one_sentence(answer)
        assert "tokens has 500,000 ids" in answer.text

    @pytest.mark.parametrize(("route", "body"), ODD, ids=lambda value: str(value)[:60])
    def test_what_a_fuzzer_found(self, server, route, body):
        """Each was a 500 of SGLang's."""
        assert_one_sentence(server.post(route, body))

    @pytest.mark.parametrize("schema", SLOW, ids=str)
    def test_a_grammar_that_takes_for_ever_to_compile(self, server, schema):
        params = {**GREEDY, "json_schema": json.dumps(SLOW[schema])}
        sentence = assert_one_sentence(server.post("/generate", {"text": "Hi", "sampling_params": params}))
        assert sentence.startswith("json_schema can't be used: it takes more than 5 s to compile")


@pytest.mark.xdist_group("guided")
class TestGuidedServer(Refused):
    @pytest.fixture(scope="class")
    def server(self, guided):
        return guided

    @pytest.fixture(scope="class")
    def neighbours(self):
        return (0.5, 0.0)


@pytest.mark.xdist_group("plain")
class TestPlainServer(Refused):
    @pytest.fixture(scope="class")
    def server(self, plain):
        return plain

    @pytest.fixture(scope="class")
    def neighbours(self):
        return (None, None)


@pytest.mark.xdist_group("guided")
class TestMeaning:
    def test_no_tokens_means_no_tokens(self, guided):
        for limits in ({"max_completion_tokens": 0}, {"max_completion_tokens": 0, "max_tokens": 2}, {"max_tokens": 0}):
            answer = guided.post("/v1/chat/completions", {"model": "m", "messages": HI, "ignore_eos": True, **limits})
            assert answer.json()["usage"]["completion_tokens"] == 0, limits

    def test_defaults_are_not_wishes(self, guided):
        body = {"text": "Hi", "background": False, "received_time": None, "bootstrap_host": None, "mm_hashes": [],
                "log_metrics": True, "lora_path": None, "not_of_sglang": 5, "sampling_params": GREEDY}  # fmt: skip
        assert guided.post("/generate", body).ok
        for field in ("audio_data", "decode_tp_size", "bootstrap_port", "input_embeds", "lora_path"):
            assert guided.post("/generate", {"text": ["Hi"], "sampling_params": GREEDY, field: []}).ok, field
        nothing = {"bootstrap_port": [], "bootstrap_host": [], "bootstrap_room": []}
        assert guided.post("/v1/completions", {"model": "m", "prompt": ["Hi"], "max_tokens": 2, **nothing}).ok
        network = {"extra_headers": {"Proxy-Authorization": "Basic x"}, "config": {"proxy_url": "http://x"}}
        chat = {"model": "m", "messages": HI, "max_tokens": 2, "user": "me", "store": True, **network}
        assert guided.post("/v1/chat/completions", chat).ok

    def test_a_tool_that_failed_is_told_to_the_model(self, guided):
        """Kills: a wish that SGLang drops, and a 400 for every later turn of an agent whose call failed once."""

        def tokens(content, **more):
            part = RESULT | {"content": content} | more
            body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
            return guided.post("/v1/messages/count_tokens", body).json()["input_tokens"]

        text = [{"type": "text", "text": "x"}]
        assert tokens("x", is_error=True) == tokens("Error: x") > tokens("x") == tokens("x", is_error=False)
        assert tokens(text, is_error=True) == tokens([{"type": "text", "text": "Error:"}, *text]) > tokens(text)

    def test_names_of_others_are_a_clients_own_matter(self, guided):
        """Messages, tools and schemas may say proxy_alpha as often as they like."""
        body = {
            "model": "m", "max_tokens": 2,
            "messages": [{"role": "user", "content": "proxy_alpha", "name": "proxy_alpha"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "proxy_alpha", "schema": {
                "type": "object", "properties": {"proxy_alpha": {"type": "number"}}, "required": ["proxy_alpha"]}}},
        }  # fmt: skip
        assert guided.post("/v1/chat/completions", body).ok


def stream_ends(server, rid, ends, tokens=300, begun=None):
    params = {"max_new_tokens": tokens, "ignore_eos": True, "temperature": 0}
    response = server.post(
        "/generate", {"text": "Look", "rid": rid, "stream": True, "sampling_params": params}, stream=True
    )
    lines = (line for line in response.iter_lines() if line.startswith(b"data: {"))
    first = next(lines)
    if begun is not None:
        begun.set()
    *_, last = first, *lines
    meta = json.loads(last[6:])["meta_info"]
    ends[rid] = (meta["finish_reason"]["type"], meta["completion_tokens"], meta["id"])


@pytest.mark.xdist_group("guided")
class TestIds:
    def test_a_request_is_ended_by_its_own_id_alone(self, guided):
        ends = {}
        begun = {rid: threading.Event() for rid in ("job-1", "job-10", "job-2")}
        threads = [
            threading.Thread(target=stream_ends, args=(guided, rid, ends), kwargs={"begun": event})
            for rid, event in begun.items()
        ]
        for thread in threads:
            thread.start()
        assert all(event.wait(60) for event in begun.values())
        assert guided.post("/abort_request", {"rid": "job-1"}).ok
        assert guided.post("/abort_request", {"rid": "job"}).ok
        for thread in threads:
            thread.join()
        assert ends["job-1"][0] == "abort" and ends["job-1"][1] < 300
        assert ends["job-10"] == ("length", 300, "job-10") and ends["job-2"] == ("length", 300, "job-2")

    def test_an_id_may_be_used_again_at_once(self, guided):
        """SGLang's clean-up of the first stream comes 2 s after its end."""
        ends = {}
        stream_ends(guided, "again", ends, tokens=5)
        stream_ends(guided, "again", ends, tokens=900)
        assert ends["again"] == ("length", 900, "again")

    def test_a_refused_stream_ends_nobody_who_has_its_id_next(self, guided):
        bad = {"text": "Hi", "rid": "twice", "stream": True, "sampling_params": {"temperature": -1}}
        assert_one_sentence(guided.post("/generate", bad))
        ends = {}
        stream_ends(guided, "twice", ends, tokens=900)
        assert ends["twice"] == ("length", 900, "twice")

    def test_two_at_once_can_not_have_one(self, guided):
        ends, begun = {}, threading.Event()
        thread = threading.Thread(target=stream_ends, args=(guided, "one", ends), kwargs={"begun": begun})
        thread.start()
        assert begun.wait(60)
        sentence = assert_one_sentence(
            guided.post("/generate", {"text": "Hi", "rid": "one", "sampling_params": GREEDY})
        )
        thread.join()
        assert "rid 'one'" in sentence and ends["one"][0] == "length"

    @pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions"])
    def test_all_chunks_of_a_stream_have_one_id(self, guided, route):
        prompts = {"messages": HI} if "chat" in route else {"prompt": ["a", "b"]}
        body = {"model": "m", "n": 2, "stream": True, "max_tokens": 3, **prompts}
        response = guided.post(route, body)
        chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == set(
            range(2 if "chat" in route else 4)
        )

    def test_an_id_of_sglangs_health_check_is_an_ordinary_one(self, guided):
        ends = {}
        stream_ends(guided, "HEALTH_CHECK_1", ends, tokens=5)
        assert ends["HEALTH_CHECK_1"] == ("length", 5, "HEALTH_CHECK_1")
        assert guided.get("/health_generate").ok
