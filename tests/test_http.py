"""What clients see: OpenAI's and SGLang's API, errors that say what to do, and a server that survives them."""

import json

import openai
import pytest
import requests

import servers
from servers import chat_messages
from sgl_proxythinker.programs.pictures import data_url, random_picture

pytestmark = pytest.mark.xdist_group("guided")

GREEDY = {"temperature": 0, "max_new_tokens": 8}


@pytest.fixture(autouse=True)
def unharmed(guided):
    """After every test, whatever it sent, the server answers as it did before."""

    def ask():
        return guided.generate(text="Still there?", sampling_params=GREEDY)["output_ids"]

    before = ask()
    yield
    assert ask() == before


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/generate", {"text": "Hi", "sampling_params": {"n": None, "temperature": None, "max_new_tokens": 2}}),
        ("/v1/chat/completions", {"messages": chat_messages("Hi"), "max_tokens": 2, "parallel_tool_calls": None}),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 2, "temperature": None, "top_p": None, "echo": None}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_null_is_the_default_of_every_field(guided, route, body):
    if route != "/generate":
        body |= dict.fromkeys(("n", "stream", "logprobs", "frequency_penalty", "presence_penalty", "seed", "stop"))
    response = guided.post(route, body)
    assert response.ok, response.text


def test_streaming_chat_gives_the_same_text(guided):
    messages = chat_messages("What is it?", [random_picture(7)])
    whole = guided.chat(messages, 1.5)["choices"][0]["message"]["content"]
    stream = guided.openai.chat.completions.create(
        model="default", messages=messages, temperature=0, max_tokens=16, stream=True,
        stream_options={"include_usage": True}, extra_body={"custom_params": {"proxy_alpha": 1.5}},
    )  # fmt: skip
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage.completion_tokens == 16


def test_streaming_generate_carries_the_strength_in_every_chunk(guided):
    body = {"text": "Hi", "stream": True, "sampling_params": {**GREEDY, "custom_params": {"proxy_alpha": 2}}}
    response = guided.post("/generate", body, stream=True)
    events = [line[6:] for line in response.iter_lines(decode_unicode=True) if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert {chunk["meta_info"]["proxy_alpha"] for chunk in chunks} == {2.0}
    assert chunks[-1]["text"] == guided.generate(text="Hi", sampling_params=body["sampling_params"])["text"]


def test_completions_take_the_strength_too(guided):
    def complete(alpha):
        completion = guided.openai.completions.create(
            model="default", prompt="Count", temperature=0, max_tokens=8,
            extra_body={"custom_params": {"proxy_alpha": alpha}},
        )  # fmt: skip
        return completion.choices[0].text

    assert complete(3.0) == guided.generate(
        text="Count", sampling_params={**GREEDY, "custom_params": {"proxy_alpha": 3.0}}
    )["text"]  # fmt: skip
    assert complete(3.0) != complete(0)


def test_absent_means_the_servers_alpha_and_meta_info_says_so(guided):
    meta = guided.generate(text="Hi", sampling_params=GREEDY)["meta_info"]
    assert (meta["proxy_alpha"], meta["proxy_amateur_alpha"]) == (0.5, 0.5)
    choice = guided.chat(chat_messages("Hi"), None)["choices"][0]
    assert choice["meta_info"]["proxy_alpha"] == 0.5


def test_a_batch_of_prompts_has_a_strength_each(guided):
    alphas = [0.0, 0.5, 4.0]
    answers = guided.generate(
        text=["Tell"] * 3, sampling_params=[{**GREEDY, "custom_params": {"proxy_alpha": alpha}} for alpha in alphas]
    )
    assert [answer["meta_info"]["proxy_alpha"] for answer in answers] == alphas
    assert len({answer["text"] for answer in answers}) == 3


@pytest.mark.parametrize("route", ["/v1/messages", "/api/generate", "/invocations"])
def test_routes_without_custom_params_are_guided_by_the_servers_alpha(guided, route):
    message = {"model": "default", "messages": [{"role": "user", "content": "Hi"}]}
    options = {"options": {"num_predict": 8, "temperature": 0}, "stream": False}
    body = {
        "/v1/messages": {**message, "max_tokens": 8, "temperature": 0},
        "/invocations": {**message, "max_tokens": 8, "temperature": 0},
        "/api/generate": {"model": "default", "prompt": "Hi", **options},
    }[route]
    response = guided.post(route, body)
    assert response.ok, response.text
    text = {
        "/v1/messages": lambda answer: answer["content"][0]["text"],
        "/invocations": lambda answer: answer["choices"][0]["message"]["content"],
        "/api/generate": lambda answer: answer["response"],
    }[route](response.json())
    if route == "/api/generate":
        expected = guided.generate(text="Hi", sampling_params=GREEDY)["text"]
    else:
        expected = guided.chat(chat_messages("Hi"), 0.5, max_tokens=8)["choices"][0]["message"]["content"]
    assert text == expected


def test_a_stream_in_ollamas_form_has_all_of_the_text(guided):
    """SGLang drops the text of the part that ends."""
    body = {"model": "m", "prompt": "Hi", "options": {"num_predict": 8, "temperature": 0}, "stream": True}
    lines = [json.loads(line) for line in guided.post("/api/generate", body).text.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    expected = guided.generate(text="Hi", sampling_params=GREEDY)["text"]
    assert "".join(line["response"] for line in lines) == expected


@pytest.mark.parametrize("value", [True, "0.5", [1], {"a": 1}, 10.5, -11])
def test_a_bad_alpha_is_a_400_that_says_why(guided, value):
    response = guided.post("/generate", {"text": "x", "sampling_params": {"custom_params": {"proxy_alpha": value}}})
    assert response.status_code == 400 and "proxy_alpha is" in response.text and "[-10, 10]" in response.text
    with pytest.raises(openai.BadRequestError, match="proxy_alpha is"):
        guided.chat(chat_messages("x"), value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_a_400(guided, number):
    body = '{"text": "x", "sampling_params": {"custom_params": {"proxy_alpha": ' + number + "}}}"
    response = requests.post(guided.url + "/generate", data=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"sampling_params": {"custom_params": [1]}}, "not an object"),
        ({"sampling_params": {"custom_params": {"proxy_aplha": 1}}}, "unknown key 'proxy_aplha'"),
        ({"return_logprob": True, "logprob_start_len": 0}, "would be the base model's"),
        ({"image_data": "/nonexistent.png"}, "--proxy-image-folder"),
        ({"image_data": "data:image/png;base64,AAAA"}, "in no picture format"),
        ({"image_data": [{"format": "precomputed_embedding", "feature": [[0.0]]}]}, "worked on before"),
        ({"image_data": [{"format": "PRECOMPUTED_EMBEDDING", "feature": [[0.0]]}]}, "worked on before"),
        ({"image_data": [{"format": "processor_output", "pixel_values": [[0.0]]}]}, "worked on before"),
        ({"video_data": "clip.mp4"}, "video_data can't be used"),
        ({"session_params": {"id": "s"}}, "session_params can't be used"),
        ({"text": "word " * 5000}, "longer than the model's context length"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_served_is_a_400_with_a_sentence(guided, body, sentence, stream):
    place = "<|vision_start|><|image_pad|><|vision_end|>" if "image_data" in body else ""
    response = guided.post("/generate", {"text": f"{place}x", "stream": stream, **body})
    # Of a stream too: before its first byte.
    assert response.status_code == 400 and sentence in response.json()["error"]["message"], response.text


@pytest.mark.parametrize("token", [-1, 10**6, 360])
def test_ids_that_no_tokenizer_knows_are_a_400(guided, token):
    """To an expert with a narrower head than the base's they would be an index out of range, which ends a server."""
    response = guided.post("/generate", {"input_ids": [5, token], "sampling_params": GREEDY})
    assert response.status_code == 400 and f"input_ids is [5, {token}]: it has {token}," in response.text
    with pytest.raises(openai.BadRequestError, match=f"prompt is .*it has {token},"):
        guided.openai.completions.create(model="default", prompt=[5, token], max_tokens=2)


def test_vertex_generate_is_guided(guided):
    body = {"instances": [{"text": "Hi"}], "parameters": {"sampling_params": GREEDY}}
    [answer] = guided.post("/vertex_generate", body).json()
    assert answer["meta_info"]["proxy_alpha"] == 0.5
    assert answer["text"] == guided.generate(text="Hi", sampling_params=GREEDY)["text"]


def test_an_unreadable_image_in_a_chat_is_a_400(guided):
    messages = chat_messages("What?", [])
    messages[0]["content"].insert(0, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})
    with pytest.raises(openai.BadRequestError, match="image"):
        guided.chat(messages)


@pytest.mark.parametrize("question", ["What is <|image_pad|>?", "<|im_end|><|image_pad|><|vision_start|>"])
def test_a_part_of_a_place_for_an_image_is_a_400(guided, question):
    """Stock SGLang never answers it, and can't be stopped afterwards."""
    with pytest.raises(openai.BadRequestError, match="outside of a place for an image"):
        guided.chat(chat_messages(question, [random_picture(5)]))
    prompt = f"<|vision_start|><|image_pad|><|vision_end|>{question}"
    ids = guided.post("/tokenize", {"prompt": prompt}).json()["tokens"]
    response = guided.post("/generate", {"input_ids": ids, "image_data": [data_url(random_picture(5))]})
    assert response.status_code == 400 and "outside of a place" in response.text


def test_ids_whose_logprobs_are_asked_for_end_nobody_elses_request(guided):
    """Stock SGLang's scheduler dies of a batch in which only some ask."""
    long = {"text": "Count", "sampling_params": {"temperature": 0, "max_new_tokens": 200, "ignore_eos": True}}
    with guided.post("/generate", {**long, "stream": True}, stream=True) as stream:
        lines = stream.iter_lines()
        next(lines)  # it is decoding now
        for _ in range(3):
            params = {"temperature": 0, "max_new_tokens": 5}
            asked = guided.generate(text="Why", sampling_params=params, return_logprob=True, token_ids_logprob=[5, 7])
            named = [[token for _, token, _ in row] for row in asked["meta_info"]["output_token_ids_logprobs"]]
            assert named == [[5, 7]] * asked["meta_info"]["completion_tokens"]
        *_, last, _ = (line for line in lines if line)
    assert json.loads(last.removeprefix(b"data: "))["text"] == guided.generate(**long)["text"]


def test_prompt_logprobs_are_allowed_where_they_are_honest(guided):
    body = {"text": "Hello you", "return_logprob": True, "logprob_start_len": 0}
    params = {**GREEDY, "custom_params": {"proxy_alpha": 0}}
    meta = guided.generate(**body, sampling_params=params)["meta_info"]
    assert len(meta["input_token_logprobs"]) == meta["prompt_tokens"]
    with pytest.raises(openai.BadRequestError, match="would be the base model's"):
        guided.openai.completions.create(model="default", prompt="Hello you", echo=True, logprobs=1, max_tokens=2)


def test_invalid_json_is_a_400(guided):
    response = requests.post(guided.url + "/generate", data="{", headers={"content-type": "application/json"})
    assert response.status_code == 400


@pytest.mark.parametrize("route", ["/v1/score", "/v1/embeddings", "/v1/responses", "/open_session", "/classify"])
def test_refused_routes_say_what_to_use(guided, route):
    response = guided.post(route, {})
    assert response.status_code == 400, response.text
    assert len(response.json()["error"]["message"].split()) > 8


def test_routes_that_do_not_exist_are_still_404(guided):
    assert guided.post("/v1/nothing", {}).status_code == 404


def test_the_server_says_what_it_serves(guided, triple, experts):
    proxy = {
        "expert": str(triple.expert),
        "amateur": str(triple.amateur),
        "experts": {
            "charts": dict(zip(("path", "amateur"), map(str, experts["charts"]), strict=True)),
            "math": {"path": str(experts["math"][0]), "amateur": str(triple.amateur)},
        },
        "alpha": 0.5,
        "placement": "shared",
        "law": None,
        "clip": None,
        "plausible": None,
        "streams": True,
        "speculate": servers.told_speculation(servers.speculate),
    }
    assert guided.get("/server_info").json()["proxy"] == proxy
    assert guided.get("/model_info").json()["proxy"] == proxy
    assert guided.openai.models.list().data[0].id == str(triple.base)


def test_the_start_up_plan_is_printed(guided):
    log = guided.log_text()
    head = log[log.index("proxythinker: placement") :].splitlines()[0]
    models = ["base", "expert", "amateur", "charts", "charts-amateur", "math"]
    assert f"shared ({' on rank 0, '.join(models)} on rank 0; chosen: all ranks run all models)" in head
    _, memory = log.split("; memory:\n")
    titles, *rows = (line.split() for line in memory.splitlines()[: len(models) + 2])
    assert titles == ["rank", "model", "weights", "GiB", "KV", "bytes/token", "KV", "GiB", "tokens"]
    assert [row[:2] for row in rows] == [["0", name] for name in (*models, "sum")]
    _, rest = log.split("beside weights and KV, for 64 of the 64 requests that may run at once:\n")
    names = [*models, *(["drafts", "penalties"] if servers.speculate else []), "trace", "fused"]
    titles, *rows = (line.split() for line in rest.splitlines()[: len(names) + 1])
    assert titles == ["rank", "model", "graphs", "GiB", "logits", "GiB", "images", "GiB", "left", "GiB"]
    assert [row[:2] for row in rows] == [["0", name] for name in names]
    assert [row[-1] for row in rows[: len(models)]] == ["0.10"] * len(models), (
        "SGLang's default for its cache of image embeddings, each"
    )
    assert float(rows[-1][-1]) > 0.5, "what is left of this machine"


def test_aborting_a_stream_frees_its_request(guided):
    """The client goes away in the middle; the scheduler goes on with the others and gets the memory back."""
    body = {"text": "Long", "stream": True, "sampling_params": {"max_new_tokens": 3000, "ignore_eos": True}}
    response = guided.post("/generate", body, stream=True)
    next(response.iter_lines())
    response.close()
    guided.post("/abort_request", {"abort_all": True})
    flushed = guided.post("/flush_cache?timeout=60", None)
    assert flushed.ok, "flushing needs every request to be gone"


def test_usage_and_finish_reasons(guided):
    answer = guided.chat(chat_messages("Hi"), 1.0, max_tokens=3)
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 3
    assert answer["choices"][0]["finish_reason"] == "length"


def test_images_by_file_and_by_data_url_are_the_same(guided, picture_folder):
    image = random_picture(61)
    image.save(picture_folder / "picture.png")
    place = "<|vision_start|><|image_pad|><|vision_end|>What?"
    by_file, by_url = (
        guided.generate(text=place, image_data=data, sampling_params=GREEDY)["output_ids"]
        for data in (str(picture_folder / "picture.png"), data_url(image))
    )
    assert by_file == by_url
