"""Too little KV room for the load: requests are retracted, and nobody's tokens change.

The same server carries unequal models (a wider base, heads of different widths), an expert with one damaged embedding
(only requests that read the damaged token are harmed), prompts that are read in chunks, and streams whose chunks hold
only what is new.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors.torch import load_file, save_file

from cases import (
    LONG_TEXTS,
    Case,
    ask_all,
    assert_agrees,
    assert_same_tokens,
    logprob_tolerance,
    mixed_cases,
    oracle_answer,
)
from servers import ADMIN_KEY, DEVICE, ON_GPU, command, serving
from sgl_proxythinker.programs.random_triple import UNEQUAL, make_triple
from sgl_proxythinker.programs.reference_hf import Reference
from trace_oracle import assert_is_the_oracles

pytestmark = pytest.mark.xdist_group("pressure")

DAMAGED = "<|object_ref_start|>"
TOKENS = 700
CHUNK = 64
SEVERAL_CHUNKS = "Look at every picture, count what you see, and say it in order. " * 4


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    made = make_triple(
        tmp_path_factory.mktemp("unequal"), seed=3, sizes=UNEQUAL, head_rows={"base": 384, "expert": 512}
    )
    damaged_id = Reference(made.base, made.base, made.base).tokenizer.convert_tokens_to_ids(DAMAGED)
    weights = load_file(made.expert / "model.safetensors")
    [embedding] = [name for name in weights if name.endswith("embed_tokens.weight")]
    weights[embedding][damaged_id] = float("nan")
    save_file(weights, made.expert / "model.safetensors", metadata={"format": "pt"})
    return made


@pytest.fixture(scope="module")
def reference(triple):
    return Reference(triple.base, triple.expert, triple.amateur)


FLAGS = (
    "--max-total-tokens", str(TOKENS), "--max-running-requests", "32",
    "--admin-api-key", ADMIN_KEY,
    "--schedule-conservativeness", "0.05", "--chunked-prefill-size", str(CHUNK), "--enable-metrics",
    "--incremental-streaming-output", *DEVICE,
)  # fmt: skip


@pytest.fixture(scope="module")
def small(triple, tmp_path_factory):
    log = tmp_path_factory.mktemp("small") / "log"
    with serving(command(triple.base, (triple.expert, triple.amateur), *FLAGS), log) as server:
        yield server


def test_unequal_heads_give_the_oracles_tokens(small, reference):
    cases = mixed_cases()
    for answer, case in zip(ask_all(small, cases), cases, strict=True):
        assert_agrees(answer, oracle_answer(reference, case), case, reference)


# All of them count tokens, whichever are retracted. In 16 bits a law may be another one where it is close to its bound.
SCHEDULE = {"proxy_law": {"kind": "schedule", "points": [[0, 1.5], [80, -1.0]]}, "proxy_alpha": None}
DIVERGENCE = {"kind": "divergence", "scale": 10.0, "low": -1.0, "warmup_tokens": 50}
ENTROPY = {"kind": "entropy", "above": 1.5}
LAWS = [
    SCHEDULE,
    {"proxy_law": DIVERGENCE},
    SCHEDULE | {"proxy_law": [SCHEDULE["proxy_law"], ENTROPY]},
    {"proxy_law": [DIVERGENCE, ENTROPY]},
    SCHEDULE | {"proxy_clip": 0.5},
    {"proxy_law": DIVERGENCE, "proxy_clip": 0.8},
    SCHEDULE | {"proxy_plausible": 0.3},
    {"proxy_law": DIVERGENCE, "proxy_plausible": 0.5},
]


def test_retracted_requests_give_the_oracles_tokens(small, reference):
    """Long answers that together need several times the room, in one burst.

    Kills: a trace that loses tokens, and a law that counts from where a retracted request began again.
    """
    cases = [Case(text, alpha=index / 4) for index, text in enumerate(LONG_TEXTS)]
    # Every other one asks for a trace, which must lose no token where a request is retracted; the others have laws.
    laws = [{}] * 16 if ON_GPU else [law for one in LAWS for law in ({}, one)]
    params = list(map(_to_write_much, cases, [True, False] * 8))
    for one, law in zip(params, laws, strict=True):
        one["custom_params"] |= law
    answers = small.generate_at_once(LONG_TEXTS, params)
    retractions = [answer["meta_info"]["num_retractions"] for answer in answers]
    assert sum(retractions) > 0, "the load must not have fitted"
    assert ON_GPU or any(count and law for count, law in zip(retractions, laws, strict=True)), retractions
    for answer, case, law in zip(answers, cases, laws, strict=True):
        said = {name.removeprefix("proxy_"): value for name, value in law.items() if name != "proxy_alpha"}
        oracle = reference.generate(case.text, alpha=case.alpha, max_new_tokens=96, stop_at_eos=False, **said)
        assert_same_tokens(answer["output_ids"], oracle, reference, case.alpha, **said)
    for answer, case in list(zip(answers, cases, strict=True))[::2]:
        trace = answer["meta_info"]["proxy_trace"]
        assert trace["token_id"] == answer["output_ids"]
        assert_is_the_oracles(trace, reference, case.text, [], case.alpha)
    assert not any("proxy_trace" in answer["meta_info"] for answer in answers[1::2])


def test_retracted_requests_know_what_they_have_written(small, reference):
    """Kills: a strength after a text that a request forgets, or finds elsewhere, when it begins again."""
    cases = [Case(text, alpha=0.5 + index / 8) for index, text in enumerate(LONG_TEXTS)]
    plain = _long_answers(small, cases, [False] * 16)
    texts = [_text_across_tokens(reference.tokenizer, answer["output_ids"]) for answer in plain]
    laws = [{"kind": "schedule", "after": {"text": text, "alpha": -0.75}} for text in texts]
    answers = _long_answers(small, cases, [True] * 16, laws)
    assert sum(answer["meta_info"]["num_retractions"] for answer in answers) > 0, "the load must not have fitted"
    for answer, case, text, law in zip(answers, cases, texts, laws, strict=True):
        tokens = answer["output_ids"]
        before = [text not in reference.tokenizer.decode(tokens[:count]) for count in range(len(tokens))]
        assert {True, False} == set(before)
        wanted = [case.alpha if is_before else -0.75 for is_before in before]
        assert answer["meta_info"]["proxy_trace"]["alpha"] == pytest.approx(wanted)
        if not ON_GPU:
            rows = reference.fused_logits(case.text, continuation=tokens[:-1], alpha=case.alpha, law=law)
            assert tokens == rows.argmax(-1).tolist()


@pytest.mark.parametrize(
    "flags", [("--proxy-speculate", "3"), ("--proxy-speculate", "off", "--disable-overlap-schedule")]
)
def test_retracted_requests_are_penalized_for_all_that_they_have_written(triple, tmp_path, flags):
    """Kills: counts that a request forgets, or has twice, when it begins again beside others.

    With overlap SGLang's own penalties come a step late, or in time, by what else is served.
    """
    arguments = command(triple.base, (triple.expert, triple.amateur), *FLAGS, *flags)
    params = _to_write_much(Case("", alpha=0.5), False)
    penalized = [params | {"repetition_penalty": 1.3, "frequency_penalty": 0.1 * place} for place in range(16)]
    with serving(arguments, tmp_path / "log") as server:
        crowd = server.generate_at_once(LONG_TEXTS, penalized)
        alone = [
            server.generate(text=one, sampling_params=of_one) for one, of_one in zip(LONG_TEXTS, penalized, strict=True)
        ]
    assert sum(answer["meta_info"]["num_retractions"] for answer in crowd) > 0, "the load must not have fitted"
    if not ON_GPU:  # in 16 bits ids of nearly the same logit change places
        assert [answer["output_ids"] for answer in crowd] == [answer["output_ids"] for answer in alone]
    for answer in alone:
        assert len(set(answer["output_ids"])) > 24, "no penalty was there"


def _text_across_tokens(tokenizer, tokens: list[int]) -> str:
    """Two characters that a request wrote early, the end of one token and the beginning of the next."""
    for at in range(4, len(tokens) - 1):
        one, other = (tokenizer.decode([token]) for token in tokens[at : at + 2])
        text = one[-1] + other[0]
        if text.isascii() and len(one + other) > 2 and text not in tokenizer.decode(tokens[: at + 1]):
            return text
    raise AssertionError(f"no two tokens are text: {tokenizer.decode(tokens)!r}")


def _long_answer(server, case: Case, trace: bool) -> dict:
    return server.generate(text=case.text, sampling_params=_to_write_much(case, trace))


def _long_answers(server, cases: list[Case], traces: list[bool], laws: list[dict] | None = None) -> list[dict]:
    params = map(_to_write_much, cases, traces, laws or [None] * len(cases))
    return server.generate_at_once([case.text for case in cases], list(params))


def _to_write_much(case: Case, trace: bool, law: dict | None = None) -> dict:
    custom_params = {"proxy_alpha": case.alpha, "proxy_trace": trace, "proxy_law": law}
    return {"temperature": 0, "max_new_tokens": 96, "ignore_eos": True, "custom_params": custom_params}


def test_a_chunk_of_what_is_new_carries_its_trace(small, reference):
    def stream(wish: bool) -> list[dict]:
        # So many that also a slow reader gets them in more than one chunk.
        params = {"temperature": 0, "max_new_tokens": 100, "ignore_eos": True}
        params["custom_params"] = {"proxy_alpha": 1.5, "proxy_trace": wish}
        response = small.post("/generate", {"text": "Tell", "stream": True, "sampling_params": params}, stream=True)
        events = [line[6:] for line in response.iter_lines(decode_unicode=True) if line.startswith("data: {")]
        return [json.loads(event) for event in events]

    with ThreadPoolExecutor(4) as pool:
        shown, hidden, *_ = pool.map(stream, [True, False, True, False])
    assert all("proxy_trace" not in chunk["meta_info"] for chunk in hidden)
    traces = [chunk["meta_info"]["proxy_trace"] for chunk in shown]
    assert len(traces) > 1
    assert [trace["token_id"] for trace in traces] == [chunk["output_ids"] for chunk in shown]
    whole = {name: [value for trace in traces for value in trace[name]] for name in traces[0]}
    assert len(whole["token_id"]) == 100
    assert_is_the_oracles(whole, reference, "Tell", [], 1.5)


SHORT = f"Look {DAMAGED} here"
# Damaged in the first chunk of several, in a middle one, and in the last.
LONG = [f"{DAMAGED} {SEVERAL_CHUNKS}", f"{SEVERAL_CHUNKS}{DAMAGED} {SEVERAL_CHUNKS}", f"{SEVERAL_CHUNKS}{DAMAGED}"]


def ask_damaged(server, alpha, text=SHORT, **options):
    custom_params = {"proxy_alpha": alpha, "proxy_trace": True}
    params = {"temperature": 0, "max_new_tokens": 8, "custom_params": custom_params}
    return server.post("/generate", {"text": text, "sampling_params": params, **options})


def test_a_broken_row_ends_its_request_with_an_error_and_no_other(small, reference):
    """Prompts of one chunk and of several, beside neighbours that decode, and that are read in chunks too."""
    healthy = [Case(f"Say number {index}", alpha=0.5) for index in range(6)]
    healthy += [Case(f"{SEVERAL_CHUNKS}Say number {index}", alpha=0.5) for index in range(2)]
    asked = [(alpha, text) for alpha in (0.5, 1.0, -2.0) for text in (SHORT, *LONG)]
    counted = broken_rows(small)
    with ThreadPoolExecutor(24) as pool:
        broken = [pool.submit(ask_damaged, small, alpha, text) for alpha, text in asked]
        answers = list(pool.map(lambda case: _long_answer(small, case, True), healthy))
    for future in broken:
        response = future.result()
        assert response.status_code == 500 and "became NaN or infinite" in response.text
    for answer, case in zip(answers, healthy, strict=True):
        oracle = reference.generate(case.text, alpha=0.5, max_new_tokens=96, stop_at_eos=False)
        assert_same_tokens(answer["output_ids"], oracle, reference, 0.5)
    assert broken_rows(small) == counted + len(asked)


def broken_rows(server) -> float:
    """The counter in /metrics, over the processes that report it."""
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("sglang:proxy_broken_rows_total"))


def test_a_broken_row_ends_a_stream_with_an_error(small):
    response = ask_damaged(small, 0.5, stream=True)
    assert response.status_code == 500 and "became NaN or infinite" in response.json()["error"]["message"]


def test_the_base_still_answers_where_a_proxy_is_broken(small, reference):
    response = ask_damaged(small, 0.0)
    assert response.ok, response.text
    clean = Reference(*[reference.base.model.name_or_path] * 3)
    oracle = clean.generate(SHORT, alpha=0.0, max_new_tokens=8)
    assert_same_tokens(response.json()["output_ids"], oracle, clean, 0.0)
    trace = response.json()["meta_info"]["proxy_trace"]
    assert trace["expert_logprob"] == trace["js_nats"] == [None] * 8, "what is no number is null, not a wrong number"
    assert trace["base_logprob"] == pytest.approx(oracle.logprobs, abs=logprob_tolerance())
    assert trace["fused_logprob"] == trace["base_logprob"] and None not in trace["amateur_logprob"]


@pytest.mark.parametrize("text", [SHORT, *LONG], ids=["one chunk", "the first", "a middle one", "the last"])
def test_a_broken_request_leaves_nothing_in_the_tree(small, reference, text):
    """Its keys and values are NaN: another request that shares the prefix must compute them itself.

    So are those of the tokens before the damaged one that were read with it: attention gives it no weight there, and
    zero times NaN is NaN.
    """
    sound = len(reference.tokenizer(text.partition(DAMAGED)[0]).input_ids) // CHUNK * CHUNK
    small.flush_cache()
    assert ask_damaged(small, 0.5, text).status_code == 500
    again = ask_damaged(small, 0.0, text).json()["meta_info"]
    assert (again["prompt_tokens"] > 2 * CHUNK) == (text is not SHORT)
    assert again["cached_tokens"] <= sound
    # What it has computed without an error isn't lost.
    assert ask_damaged(small, 0.0, text).json()["meta_info"]["cached_tokens"] == again["prompt_tokens"] - 1


def test_what_the_base_answers_for_a_broken_proxy_harms_no_guided_neighbour(small):
    """A traced answer at alpha 0 is no error, and the expert's keys and values of its last chunk are NaN."""
    small.flush_cache()
    assert ask_damaged(small, 0.0, LONG[2]).ok
    _long_answer(small, Case(SEVERAL_CHUNKS, alpha=0.5), False)


def test_chunks_of_a_sound_prompt_are_in_the_tree(small, reference):
    small.flush_cache()
    case = Case(SEVERAL_CHUNKS, alpha=0.5)
    first, second = (_long_answer(small, case, False) for _ in range(2))
    assert first["meta_info"]["cached_tokens"] == 0
    assert second["meta_info"]["cached_tokens"] == first["meta_info"]["prompt_tokens"] - 1 > 2 * CHUNK
    oracle = reference.generate(case.text, alpha=0.5, max_new_tokens=96, stop_at_eos=False)
    for answer in (first, second):
        assert_same_tokens(answer["output_ids"], oracle, reference, 0.5)
