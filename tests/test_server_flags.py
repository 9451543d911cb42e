"""Flags of SGLang's that no other test carries act on the three models together: the answers stay the oracle's.

Two servers share them. `paged` keeps its cache in pages and takes prompts in small steps; `uncached` has no radix tree,
few places to run, requests with priorities, and other defaults for prompts, pictures and answers.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import openai
import pytest
import torch
import yaml
from test_served_experts import SAID as OF_EXPERTS
from test_served_laws import DISTINCT, IN_FLOAT32, LONG, SAID, ask_all_cold_and_warm, different_answers
from transformers import AutoProcessor, DynamicCache

from cases import Case, ask_all, assert_agrees, assert_same_tokens, mixed_cases, oracle_answer, output_ids
from servers import ADMIN_KEY, DEVICE, ON_GPU, Server, chat_messages, command, sabotaged, serving
from sgl_proxythinker import __version__
from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.random_models.pictures import TOKEN_PIXELS
from sgl_proxythinker.programs.reference_hf import CachedModel, Reference, ReferenceOutput

PAGE = 16
CONTEXT = 512
POOL = 2048  # tokens
AT_ONCE = 2
DRAFTS = 3

PAGED = (
    *DEVICE, "--admin-api-key", ADMIN_KEY, "--max-total-tokens", str(POOL), "--device", "cuda" if ON_GPU else "cpu",
    "--page-size", str(PAGE), "--radix-eviction-policy", "lfu", "--schedule-policy", "lpm",
    "--max-prefill-tokens", "128", "--prefill-max-requests", str(AT_ONCE), "--scheduler-recv-interval", "2",
    "--disable-overlap-schedule", "--context-length", str(CONTEXT), "--allow-auto-truncate", "--enable-cache-report",
    "--load-format", "safetensors", "--model-impl", "sglang", "--model-config-parser", "hf", "--enable-multimodal",
    "--served-model-name", "three-in-one", "--reasoning-parser", "deepseek-r1",
)  # fmt: skip
# SGLang hands out pages with two Triton kernels, which its CPU engine has no others for.
INTERPRETED = {} if ON_GPU else {"TRITON_INTERPRET": "1"}

RUNNING, QUEUED = 4, 24
SMALL_POOL = 512  # tokens
DEFAULT_PRIORITY, SLOW_PRIORITY, THRESHOLD = 50, 90, 5  # the lower, the more urgent
PICTURES = 3
PIXELS = {"min_pixels": 4 * TOKEN_PIXELS, "max_pixels": 16 * TOKEN_PIXELS}
STEP = 4  # tokens in a chunk of a stream
WHOLE = {"separate_reasoning": False}  # of a chat: its content is the whole answer
# On a GPU the kernels of a chunk read its own keys before they are rounded, and the oracle rounds them first.
KV_DTYPE = None if ON_GPU else torch.float8_e5m2

UNCACHED = (
    *DEVICE, "--admin-api-key", ADMIN_KEY, "--max-total-tokens", str(SMALL_POOL),
    *(() if KV_DTYPE is None else ("--kv-cache-dtype", "fp8_e5m2")),
    "--disable-radix-cache", "--disable-cuda-graph", "--disable-decode-cuda-graph", "--disable-prefill-cuda-graph",
    "--max-running-requests", str(RUNNING), "--max-queued-requests", str(QUEUED),
    "--load-snapshot-publish-interval", "1",
    "--schedule-conservativeness", "0.05", "--schedule-policy", "lof", "--retraction-policy", "priority",
    "--enable-priority-scheduling", "--schedule-low-priority-values-first",
    "--default-priority-value", str(DEFAULT_PRIORITY), "--priority-scheduling-preemption-threshold", str(THRESHOLD),
    "--mm-process-config", json.dumps({"image": PIXELS}),
    "--limit-mm-data-per-request", json.dumps({"image": PICTURES}),
    "--disable-fast-image-processor", "--mm-feature-transport", "cpu",
    "--default-chat-template-kwargs", json.dumps({"add_vision_id": True}),
    "--preferred-sampling-params", json.dumps({"temperature": 0, "max_new_tokens": 5}),
    "--grammar-backend", "llguidance", "--constrained-json-whitespace-pattern", r"\n",
    "--stream-interval", str(STEP), "--stream-response-default-include-usage",
)  # fmt: skip


# A request of such a name stays for seconds, so that others come while it runs, whatever else keeps the cores.
SLOW = "slow"
SLOWS_DOWN = f"""
import time
from sgl_proxythinker.patches import scheduler_process_batch_result as patch
around = patch.around
def slowly(original, scheduler, batch, result):
    if any(":{SLOW}" in req.rid for req in batch.reqs):
        time.sleep(0.05)
    return around(original, scheduler, batch, result)
patch.around = slowly
"""


# In pages


@pytest.fixture(scope="module", params=[(), ("--proxy-speculate", str(DRAFTS))], ids=["token by token", "speculating"])
def paged(request, triple, experts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paged")
    of_charts = dict(zip(("path", "amateur_path"), map(str, experts["charts"]), strict=True))
    (folder / "experts.yaml").write_text(yaml.safe_dump({"experts": {"charts": of_charts}}))
    # Any of the models has the one tokenizer.
    flags = (*PAGED, "--tokenizer-path", str(triple.expert), *request.param)
    flags = (*flags, "--proxy-config", str(folder / "experts.yaml"), "--proxy-expert", f"math={experts['math'][0]}")
    proxies = (triple.expert, triple.amateur)
    with serving(command(triple.base, proxies, *flags), folder / "log", INTERPRETED) as server:
        yield server


def whole_pages(tokens: int) -> int:
    return tokens // PAGE * PAGE


@pytest.mark.xdist_group("paged")
class TestPaged:
    def test_a_cold_and_a_warm_cache_give_the_oracles_tokens(self, paged, reference):
        """The second time whole pages are found, and the rest of a prompt is computed by each model."""
        paged.flush_cache()
        cases = mixed_cases()
        expected = [oracle_answer(reference, case) for case in cases]
        for _ in ("cold", "warm"):
            answers = ask_all(paged, cases, extra_body=WHOLE)
            for answer, oracle, case in zip(answers, expected, cases, strict=True):
                assert_agrees(answer, oracle, case, reference)
        for answer, oracle in zip(answers, expected, strict=True):
            cached = whole_pages(len(oracle.input_ids) - 1)
            assert answer["choices"][0]["meta_info"]["cached_tokens"] == cached
            assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == cached

    def test_pages_of_the_base_alone_are_no_prefix_of_a_guided_request(self, paged, reference):
        picture = random_picture(9)
        messages = chat_messages("Which?", [picture])
        paged.flush_cache()
        for alpha, cached in ((0.0, False), (1.5, False), (0.0, True), (1.5, True)):
            answer = paged.chat(messages, alpha, logprobs=True, extra_body=WHOLE)
            oracle = reference.generate(messages, [picture], alpha=alpha, max_new_tokens=16)
            assert_agrees(answer, oracle, Case("Which?", (picture,), alpha), reference)
            told = answer["choices"][0]["meta_info"]["cached_tokens"]
            assert told == (whole_pages(len(oracle.input_ids) - 1) if cached else 0)

    def test_a_second_turn_begins_with_the_pages_of_the_first(self, paged, reference):
        first, second = random_picture(11), random_picture(12, 112, 56)
        messages = chat_messages("What is here?", [first])
        answer = paged.chat(messages, 1.0, extra_body=WHOLE)
        said = {"role": "assistant", "content": answer["choices"][0]["message"]["content"]}
        turns = [*messages, said, *chat_messages("And here?", [second])]
        oracle = reference.generate(turns, [first, second], alpha=1.0, max_new_tokens=16)
        follow_up = paged.chat(turns, 1.0, logprobs=True, extra_body=WHOLE)
        assert_agrees(follow_up, oracle, Case("And here?", (first, second), 1.0), reference)
        cached = follow_up["choices"][0]["meta_info"]["cached_tokens"]
        assert cached >= whole_pages(answer["usage"]["prompt_tokens"]) and cached % PAGE == 0

    @IN_FLOAT32
    def test_each_law_gives_the_oracles_tokens_where_the_host_knows_every_token(self, paged, reference):
        """Without overlap. Kills: a marker, or a token, that is counted twice or not at all there."""
        asked, answers = ask_all_cold_and_warm(paged, reference, [("Hi", None), (LONG, None)], SAID)
        assert different_answers(asked, answers) >= DISTINCT - 2

    @IN_FLOAT32
    def test_each_expert_gives_the_oracles_tokens_whoever_drafts(self, paged, reference):
        """Kills: the drafter's row for that of the expert that is asked for, and pages that this one has not read."""
        asked, answers = ask_all_cold_and_warm(paged, reference, [("Hi", None), (LONG, None)], OF_EXPERTS)
        assert different_answers(asked, answers) >= len(OF_EXPERTS) - 1
        if paged.get("/server_info").json()["proxy"]["speculate"] != "off":
            assert all(answer["meta_info"]["spec_verify_ct"] for answer in answers), "one writes ahead for all"

    def test_what_is_asked_often_stays_when_pages_are_needed(self, paged, reference):
        """By age it would go first."""
        paged.flush_cache()
        often = list(range(20, 120))
        for _ in range(3):
            ask(paged, input_ids=often, tokens=1)
        for number in range(2 * POOL // 150):
            ask(paged, input_ids=[number, *range(100, 249)], tokens=1)
        answer = ask(paged, input_ids=often)
        assert answer["meta_info"]["cached_tokens"] == whole_pages(len(often) - 1)
        oracle = reference.generate(often, alpha=1.5, max_new_tokens=8, stop_at_eos=False)
        assert_same_tokens(answer["output_ids"], oracle, reference, 1.5)

    def test_steps_are_as_small_as_they_were_asked_for(self, paged):
        paged.flush_cache()
        ask_all(paged, mixed_cases())
        steps = re.findall(r"Prefill batch.*#new-seq: (\d+), #new-token: (\d+)", paged.log_text())
        assert max(int(requests) for requests, _ in steps) == AT_ONCE

    def test_what_exceeds_the_context_is_cut(self, paged, reference):
        ids = [20 + number * 7 % 300 for number in range(CONTEXT + 90)]
        # On a GPU chains take of the context (docs/speculation.md).
        is_shorter = ON_GPU and paged.get("/server_info").json()["speculative_algorithm"]
        prompt = ids[: CONTEXT - 8 - (PAGE + 2 * (DRAFTS + 1) if is_shorter else 0)]
        answer = ask(paged, input_ids=prompt, tokens=40)
        oracle = reference.generate(prompt, alpha=1.5, max_new_tokens=8, stop_at_eos=False)
        assert 0 < len(answer["output_ids"]) <= 8
        assert_same_tokens(answer["output_ids"], cut(oracle, len(answer["output_ids"])), reference, 1.5)
        # Of a longer prompt nothing is left to answer.
        assert ask(paged, input_ids=ids)["meta_info"]["prompt_tokens"] <= CONTEXT

    def test_thoughts_are_told_from_the_answer(self, paged):
        """This parser takes all for thoughts up to a tag that the tokenizer has no token for."""
        thought, whole = (
            paged.chat(chat_messages("Why?"), 1.5, extra_body=extra)["choices"][0]["message"] for extra in ({}, WHOLE)
        )
        assert not thought["content"] and not whole["reasoning_content"]
        assert thought["reasoning_content"] == whole["content"] != ""

    def test_it_runs_as_it_was_told(self, paged, triple):
        """What shows in no answer."""
        told = paged.get("/server_info").json()
        wanted = {
            "page_size": PAGE, "context_length": CONTEXT, "disable_overlap_schedule": True, "schedule_policy": "lpm",
            "scheduler_recv_interval": 2, "max_prefill_tokens": 128, "load_format": "safetensors",
            "model_impl": "sglang", "model_config_parser": "hf", "enable_multimodal": True,
            "tokenizer_path": str(triple.expert), "mm_feature_transport": "cpu",
            "enforce_disable_flashinfer_allreduce_fusion": True, "proxythinker_version": __version__,
        }  # fmt: skip
        assert {name: told[name] for name in wanted} == wanted
        assert paged.get("/v1/models").json()["data"][0]["id"] == "three-in-one"


def cut(oracle: ReferenceOutput, tokens: int) -> ReferenceOutput:
    return replace(oracle, token_ids=oracle.token_ids[:tokens])


def ask(server: Server, tokens: int = 8, alpha: float = 1.5, params: dict | None = None, **options) -> dict:
    """A greedy answer of so many tokens to `text` or `input_ids`."""
    common = {"temperature": 0, "max_new_tokens": tokens, "custom_params": {"proxy_alpha": alpha}}
    params = common | ({"ignore_eos": True} if params is None else params)
    return server.generate(**options, sampling_params=params, return_logprob=True)


def ask_slow(server: Server, text: str, **options) -> dict:
    """As `ask`, of a server that `SLOWS_DOWN`."""
    return ask(server, text=text, rid=f"{SLOW} {text}", **options)


# Without a radix tree, and with priorities


class Rounded(DynamicCache):
    """Keys and values as the server keeps them."""

    def update(self, keys, values, *args, **kwargs):
        return super().update(keys.to(KV_DTYPE).float(), values.to(KV_DTYPE).float(), *args, **kwargs)


class RoundedModel(CachedModel):
    def _forward(self, *args, **inputs):
        if self.cache is None:
            self.cache = Rounded()
        return super()._forward(*args, **inputs)


class AsSet(Reference):
    """The oracle with what the flags of `uncached` set for each prompt."""

    def __init__(self, triple):
        cache = CachedModel if KV_DTYPE is None else RoundedModel
        super().__init__(triple.base, triple.expert, triple.amateur, cache=cache)
        self.processor = AutoProcessor.from_pretrained(triple.base, use_fast=False, **PIXELS)

    def prepare(self, prompt, images=None):
        if isinstance(prompt, list) and isinstance(prompt[0], dict):
            prompt = self.tokenizer.apply_chat_template(
                prompt, tokenize=False, add_generation_prompt=True, add_vision_id=True
            )
        return super().prepare(prompt, images)


@pytest.fixture(scope="module")
def as_set(triple):
    return AsSet(triple)


@pytest.fixture(scope="module")
def uncached(triple, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uncached")
    arguments = command(triple.base, (triple.expert, triple.amateur), *UNCACHED)
    with serving(sabotaged(folder, SLOWS_DOWN, arguments), folder / "log") as server:
        yield server


Tokens = Collection[int]


def off_by(
    oracle: Reference,
    prompt,
    images,
    alpha: float,
    token_ids: list[int],
    logprobs: list[float],
    never: Collection[int] = (),
) -> float:
    """How far the tokens are from the likeliest and their log probabilities from the oracle's, the worst of them."""
    rows = oracle.fused_logits(prompt, images, token_ids[:-1], alpha=alpha)
    rows[:, list(never)] = -torch.inf
    steps = range(len(token_ids))
    below = rows.max(dim=-1).values - rows[steps, token_ids]
    off = rows.log_softmax(dim=-1)[steps, token_ids] - torch.tensor(logprobs)
    return torch.maximum(below, off.abs()).max().item()


def bound(alpha: float) -> float:
    """A key near the middle between two of 8 bits is rounded up here and down there, which made up to 0.005.

    On a GPU all is in 16 bits.
    """
    return (0.1 if ON_GPU else 0.05) * (1 + 2 * abs(alpha))


def assert_is_as_set(
    answer: dict, oracle: Reference, text: str, alpha: float = 1.5, never: Collection[int] = ()
) -> None:
    """An answer of `ask` is the oracle's."""
    logprobs = [logprob for logprob, *_ in answer["meta_info"]["output_token_logprobs"]]
    assert off_by(oracle, text, [], alpha, answer["output_ids"], logprobs, never) <= bound(alpha)


@pytest.mark.xdist_group("uncached")
class TestUncached:
    def test_nothing_is_kept_and_the_tokens_are_the_oracles(self, uncached, as_set, reference):
        cases, unlike = mixed_cases(), []
        for _ in ("once", "again"):
            for answer, case in zip(ask_all(uncached, cases), cases, strict=True):
                choice, prompt = answer["choices"][0], as_set.prepare(case.messages(), list(case.images))
                assert choice["meta_info"]["cached_tokens"] == 0
                assert answer["usage"]["prompt_tokens"] == prompt.input_ids.shape[1]
                logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
                told = (case.messages(), list(case.images), case.alpha, output_ids(choice), logprobs)
                assert off_by(as_set, *told) <= bound(case.alpha)
                if not case.images:  # those are read at another size and by another name
                    unlike.append(off_by(reference, *told) > bound(case.alpha))
        assert all(unlike) or KV_DTYPE is None, "the keys were not rounded, or the bound is no test of it"

    @pytest.mark.parametrize(
        ("urgent", "preempts"),
        [
            ({"priority": SLOW_PRIORITY - THRESHOLD - 1}, True),
            ({"priority": SLOW_PRIORITY - THRESHOLD}, False),
            ({}, True),
        ],
    )
    def test_an_urgent_request_takes_a_place_and_nobodys_tokens_change(self, uncached, as_set, urgent, preempts):
        texts = [f"Say number {index}" for index in range(RUNNING)]
        with ThreadPoolExecutor(RUNNING) as pool:
            slow = [pool.submit(ask_slow, uncached, text=text, tokens=96, priority=SLOW_PRIORITY) for text in texts]
            wait_until(uncached, "running", RUNNING)
            answer = ask_slow(uncached, text="Now", **urgent)
            assert any(request.done() for request in slow) == (not preempts)
            slow = [request.result() for request in slow]
        assert sum(request["meta_info"]["num_retractions"] for request in slow) == preempts
        for text, request in zip([*texts, "Now"], [*slow, answer], strict=True):
            assert_is_as_set(request, as_set, text)

    def test_the_less_urgent_are_retracted_for_want_of_room(self, uncached, as_set):
        """By length the later ones would be."""
        # Where nothing is cached SGLang keeps room for all tokens of a request that ignores its end.
        endless = {"logit_bias": {str(token): -100.0 for token in as_set.end_ids}}
        texts = [f"Tell number {index}" for index in range(4)]
        priorities = [DEFAULT_PRIORITY + THRESHOLD - 1] * 2 + [DEFAULT_PRIORITY] * 2
        with ThreadPoolExecutor(RUNNING) as pool:
            requests = []
            for text, priority in zip(texts, priorities, strict=True):
                requests.append(
                    pool.submit(ask_slow, uncached, text=text, tokens=160, params=endless, priority=priority)
                )
                if len(requests) == 2:
                    wait_until(uncached, "running", 2)
            answers = [request.result() for request in requests]
        retractions = [answer["meta_info"]["num_retractions"] for answer in answers]
        assert sum(retractions[:2]) > 0 and retractions[2:] == [0, 0]
        for text, answer in zip(texts, answers, strict=True):
            assert len(answer["output_ids"]) == 160
            assert_is_as_set(answer, as_set, text, never=as_set.end_ids)

    def test_of_those_that_wait_the_longest_begins(self, uncached, as_set):
        lengths = {"one": 70, "two": 112, "three": 112, "four": 112, "short": 30, "long": 40}
        with ThreadPoolExecutor(len(lengths)) as pool:
            asked: dict[str, Future] = {}
            for text, tokens in lengths.items():
                asked[text] = pool.submit(ask_slow, uncached, text=text, tokens=tokens)
                if text == "four":
                    wait_until(uncached, "running", RUNNING)
                if text == "short":
                    wait_until(uncached, "waiting", 1)
            assert asked["long"].result() and not asked["short"].done()
        for text, answer in asked.items():
            assert_is_as_set(answer.result(), as_set, text)

    def test_a_full_queue_sends_away_and_serves_the_others(self, uncached, as_set):
        texts = [f"Ask {index}" for index in range(RUNNING + QUEUED + 40)]
        params = {"temperature": 0, "max_new_tokens": 24, "ignore_eos": True, "custom_params": {"proxy_alpha": 1.5}}

        def post(text: str):
            return uncached.post("/generate", {"text": text, "sampling_params": params, "return_logprob": True})

        with ThreadPoolExecutor(len(texts)) as pool:
            responses = list(pool.map(post, texts))
        away = [response for response in responses if not response.ok]
        assert away and all(response.status_code == 503 and "queue is full" in response.text for response in away)
        served = [(text, response.json()) for text, response in zip(texts, responses, strict=True) if response.ok]
        assert len(served) >= RUNNING + QUEUED
        for text, answer in served[::4]:
            assert_is_as_set(answer, as_set, text)

    def test_a_stream_comes_in_steps_with_its_usage(self, uncached, as_set):
        params = {"temperature": 0, "max_new_tokens": 14, "ignore_eos": True, "custom_params": {"proxy_alpha": 1.5}}
        body = {"text": "Tell", "stream": True, "sampling_params": params, "return_logprob": True}
        response = uncached.post("/generate", body, stream=True)
        events = [line[6:] for line in response.iter_lines(decode_unicode=True) if line.startswith("data: {")]
        *steps, last = [json.loads(event) for event in events]
        told = [step["meta_info"]["completion_tokens"] for step in steps]
        # Who is slow gets the newest of several.
        assert told and told == sorted(set(told)) and set(told) <= {1, 5, 9, 13}
        assert_is_as_set(last, as_set, "Tell")

        chunks = list(
            uncached.openai.chat.completions.create(
                model="m", messages=chat_messages("Hi"), stream=True, temperature=0, max_tokens=6
            )
        )
        assert chunks[-1].usage.completion_tokens <= 6

    def test_a_request_without_settings_gets_the_preferred_ones(self, uncached, as_set):
        answer = uncached.generate(text="Go on", return_logprob=True)
        assert len(answer["output_ids"]) == 5
        assert_is_as_set(answer, as_set, "Go on", alpha=0.5)

    def test_json_has_the_blanks_that_were_asked_for(self, uncached):
        """The bias writes a line feed wherever it may stand."""
        [feed] = uncached.post("/tokenize", {"model": "m", "prompt": "\n"}).json()["tokens"]
        schema = {
            "type": "object",
            "properties": {"d": {"enum": [1]}},
            "required": ["d"],
            "additionalProperties": False,
        }
        params = {
            "temperature": 0, "max_new_tokens": 40, "json_schema": json.dumps(schema), "logit_bias": {str(feed): 50.0},
            "custom_params": {"proxy_alpha": 1.5},
        }  # fmt: skip
        assert uncached.generate(text="Say", sampling_params=params)["text"] == '{\n"d"\n:\n1\n}'

    def test_more_pictures_than_the_limit_are_a_400(self, uncached):
        pictures = [random_picture(seed) for seed in range(PICTURES + 1)]
        with pytest.raises(openai.BadRequestError, match="Image count 4 exceeds limit 3"):
            uncached.chat(chat_messages("What?", pictures), 0.5)

    def test_it_runs_as_it_was_told(self, uncached):
        told = uncached.get("/server_info").json()
        wanted = {"disable_radix_cache": True, "disable_cuda_graph": True, "grammar_backend": "llguidance"}
        assert {name: told[name] for name in wanted} == wanted


def wait_until(server: Server, state: str, requests: int) -> None:
    """Until so many requests are "running" or "waiting"."""
    deadline = time.monotonic() + 60
    while (found := load(server)[f"num_{state}_reqs"]) < requests:
        assert time.monotonic() < deadline, f"{found} requests are {state}"
        time.sleep(0.01)


def load(server: Server) -> dict:
    [of_its_only_rank] = server.get("/v1/loads").json()["loads"]
    return of_its_only_rank


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The oracle shares two cores with a server."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
