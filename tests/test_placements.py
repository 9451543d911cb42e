"""Wherever the models run, the answers are the oracle's and those of one rank.

Each placement is a real server over gloo with little room for keys and values and small chunks, so that prompts are
prefilled in pieces beside rows that decode, and requests are retracted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import yaml
from test_served_laws import IN_FLOAT32, SAID, assert_law_is_the_oracles, body

import servers
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
from live_metrics import samples_of
from servers import ADMIN_KEY, DEVICE, ON_GPU, Server, chat_messages, command, sabotaged, serving
from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.random_triple import make_triple
from sgl_proxythinker.programs.reference_hf import Reference
from trace_oracle import assert_is_the_oracles

pytestmark = pytest.mark.xdist_group("ranks")

TOKENS = 700
PRESSURE = (
    *DEVICE, "--max-total-tokens", str(TOKENS), "--max-running-requests", "32", "--random-seed", "1",
    "--admin-api-key", ADMIN_KEY,
    "--schedule-conservativeness", "0.05", "--chunked-prefill-size", "64", "--enable-mixed-chunk",
    "--enable-metrics",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How a server is asked for a placement, and what it must say of it."""

    name: str
    flags: tuple[str, ...]
    models: tuple[str, ...]  # of each rank
    in_file: dict[str, Any] | None = None
    experts: tuple[str, ...] = ()  # more of them
    sabotage: str | None = None  # on a CPU
    is_rare: bool = False  # what it has of its own, others have in parts
    plan: str = "as asked for"

    @property
    def nodes(self) -> int:
        return int(self.flags[self.flags.index("--nnodes") + 1]) if "--nnodes" in self.flags else 1


# A CPU's grammars (llguidance) take masks of any width. A GPU's (xgrammar) end the scheduler where one isn't as wide as
# the base's head, for which they are compiled; so do these.
STRICT_MASKS = """
from sglang.srt.constrained.llguidance_backend import GuidanceGrammar

allocate = GuidanceGrammar.allocate_vocab_mask


def allocate_for_the_base(grammar, vocab_size, batch_size, device):
    assert vocab_size == 384, f"a mask of {vocab_size} ids"
    return allocate(grammar, vocab_size, batch_size, device)


GuidanceGrammar.allocate_vocab_mask = allocate_for_the_base
"""
LAYOUTS = {
    "shared over two": Layout(
        "shared", ("--tp-size", "2", "--proxy-placement", "shared"), ("base expert amateur math",) * 2,
        experts=("math",),
    ),
    # Nothing is asked for; with drafts in every step that is `shared`.
    "split over two": Layout(
        "split", ("--tp-size", "2", *(("--proxy-placement", "split") if servers.speculate else ())),
        ("base expert", "base amateur"),
        plan=Layout.plan if servers.speculate
        else "chosen: small models run at the same time, on an equal part of the ranks each",
    ),
    # By file, with options of its own for a proxy.
    "dedicated over three": Layout(
        "dedicated", ("--tp-size", "3"), ("base", "expert", "amateur"),
        in_file={"placement": "dedicated", "tp_size": 1, "expert": {"load_format": "safetensors", "revision": "main"}},
    ),
    "shared over four": Layout(
        "shared", ("--tp-size", "4", "--proxy-placement", "shared"), ("base expert amateur",) * 4, is_rare=True
    ),
    "split over four": Layout(
        "split", ("--tp-size", "4", "--proxy-placement", "split"), ("base expert",) * 2 + ("base amateur",) * 2,
        is_rare=True,
    ),
    # The base's layers sum over what stands for a network here.
    "split over two hosts, speculating": Layout(
        "split", ("--tp-size", "2", "--nnodes", "2", "--proxy-speculate", "auto"), ("base expert", "base amateur"),
        plan="chosen: small models run at the same time, on an equal part of the ranks each",
    ),
    "split over two, speculating": Layout(
        "split", ("--tp-size", "2", "--proxy-speculate", "auto"), ("base expert", "base amateur"),
        plan="chosen: small models run at the same time, on an equal part of the ranks each", is_rare=True,
    ),
    "dedicated over three, speculating": Layout(
        "dedicated", ("--tp-size", "3", "--proxy-placement", "dedicated", "--proxy-speculate", "2"),
        ("base", "expert", "amateur"), sabotage=STRICT_MASKS,
    ),
    # The small models have a host of their own; nothing is asked for.
    "dedicated over two hosts of two": Layout(
        "dedicated", ("--tp-size", "4", "--nnodes", "2"), ("base", "base", "expert", "amateur"),
        plan="chosen: small models on ranks of their own run beside the base; not split, where models would talk over",
    ),
    "dedicated over four": Layout(
        "dedicated", ("--tp-size", "4", "--proxy-placement", "dedicated"), ("base", "base", "expert", "amateur"),
        is_rare=True,
    ),
    "dedicated over three hosts": Layout(
        "dedicated", ("--tp-size", "3", "--nnodes", "3", "--proxy-placement", "dedicated"),
        ("base", "expert", "amateur"), is_rare=True,
    ),
    "shared over two hosts": Layout(
        "shared", ("--tp-size", "2", "--nnodes", "2", "--proxy-placement", "shared"), ("base expert amateur math",) * 2,
        experts=("math",), is_rare=True,
    ),
    # A rank for each small model, of which the second expert's amateur is its own.
    "split over four, two experts": Layout(
        "split", ("--tp-size", "4"), ("base expert", "base amateur", "base charts", "base charts-amateur"),
        experts=("charts",), is_rare=True,
        plan="chosen: small models run at the same time, on an equal part of the ranks each",
    ),
    "dedicated over four, two experts": Layout(
        "dedicated", ("--tp-size", "4", "--proxy-placement", "dedicated"), ("base", "expert", "amateur", "math"),
        experts=("math",), is_rare=True,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    """The proxies' heads are wider than the base's, and no half of one is as wide as another's."""
    return make_triple(tmp_path_factory.mktemp("ranks"), seed=5, head_rows={"base": 384, "expert": 448, "amateur": 512})


@pytest.fixture(scope="module")
def more_experts(tmp_path_factory):
    """More experts: the path of each, and of its amateur where that is its own."""
    folder = tmp_path_factory.mktemp("experts")
    math = make_triple(folder / "math", seed=6, head_rows={"expert": 576})
    charts = make_triple(folder / "charts", seed=8, head_rows={"expert": 448, "amateur": 576})
    return {"math": (math.expert, None), "charts": (charts.expert, charts.amateur)}


@pytest.fixture(scope="module")
def reference(triple, more_experts):
    return Reference(triple.base, triple.expert, triple.amateur, experts=more_experts)


@pytest.fixture(scope="module")
def single_rank(triple, tmp_path_factory) -> dict[str, Any]:
    """What a server of one rank answers to `FEATURES`; it has ended before another starts."""
    folder = tmp_path_factory.mktemp("single")
    with serving(command(triple.base, (triple.expert, triple.amateur), *PRESSURE), folder / "log") as server:
        return {name: ask(server) for name, ask in FEATURES.items()}


# Four on one GPU poll on too many cores: beside ten other tests one of theirs waited for 300 s.
TOO_MANY = pytest.mark.skipif(ON_GPU and torch.cuda.device_count() < 2, reason="four ranks want two GPUs")
ASKED = [
    pytest.param(
        name, marks=[pytest.mark.rare] * layout.is_rare + [TOO_MANY] * (len(layout.models) > 3)
    ) for name, layout in LAYOUTS.items()
]  # fmt: skip


@pytest.fixture(scope="module", params=ASKED)
def layout(request) -> Layout:
    return LAYOUTS[request.param]


@pytest.fixture(scope="module")
def server(layout, triple, more_experts, single_rank, tmp_path_factory) -> Iterator[Server]:
    folder, proxies = tmp_path_factory.mktemp(layout.name), (triple.expert, triple.amateur)
    flags = (*PRESSURE, *layout.flags)
    for name in layout.experts:
        path, own_amateur = more_experts[name]
        flags = (*flags, "--proxy-expert", f"{name}={path}")
        if own_amateur:  # which a file says
            (folder / f"{name}.yaml").write_text(
                yaml.safe_dump({"experts": {name: {"amateur_path": str(own_amateur)}}})
            )
            flags = (*flags, "--proxy-config", str(folder / f"{name}.yaml"))
    if layout.in_file is not None:
        paths = {"expert_path": str(triple.expert), "amateur_path": str(triple.amateur)}
        (folder / "proxies.yaml").write_text(yaml.safe_dump(paths | layout.in_file))
        drafts = () if "--proxy-speculate" in flags else ("--proxy-speculate", servers.speculate or "off")
        flags, proxies = (*flags, *drafts, "--proxy-config", str(folder / "proxies.yaml")), None
    arguments = command(triple.base, proxies, *flags)
    if layout.sabotage and not ON_GPU:
        arguments = sabotaged(folder, layout.sabotage, arguments)
    with serving(arguments, folder / "log") as server:
        yield server


def generate(server: Server, text: str, alpha: float, tokens: int = 16, trace: bool = False, **options) -> Any:
    """One request to /generate; what is none of its own fields goes to its sampling parameters."""
    own = {name: options.pop(name) for name in list(options) if "logprob" in name}
    params = {"temperature": 0, "max_new_tokens": tokens, **options}
    params["custom_params"] = {"proxy_alpha": alpha, "proxy_trace": trace}
    return server.generate(text=text, sampling_params=params, **own)


# Start


def test_the_server_says_where_its_models_are(server, layout, triple, more_experts):
    proxy = {
        "expert": str(triple.expert),
        "amateur": str(triple.amateur),
        "experts": {
            name: {"path": str(more_experts[name][0]), "amateur": str(more_experts[name][1] or triple.amateur)}
            for name in layout.experts
        },
        "alpha": 0.5,
        "placement": layout.name,
        "law": None,
        "clip": None,
        "plausible": None,
        "streams": True,
        "speculate": servers.told_speculation(
            layout.flags[-1] if "--proxy-speculate" in layout.flags else servers.speculate
        ),
    }
    info = server.get("/server_info").json()
    assert info["proxy"] == proxy
    each = len(layout.models) // layout.nodes
    assert info["proxy_ranks"] == [
        {"rank": rank, "node": rank // each, "models": models.split()} for rank, models in enumerate(layout.models)
    ]
    assert server.get("/model_info").json()["proxy"] == proxy
    name, *listed = [card.id for card in server.openai.models.list().data]
    named = ("expert", *layout.experts) if layout.experts else ()  # the only one needs no name
    assert listed == [f"{name}@0", *(f"{name}+{expert}" for expert in named)]
    assert f"proxythinker: placement {layout.name} (" in server.log_text() and layout.plan in server.log_text()


def test_a_rank_holds_its_own_models_and_the_same_slots(server, layout):
    for node in (server, *server.other_nodes):  # each says it of all
        [_, table] = node.log_text().split("; memory:\n")
        rows = [line.split() for line in table.splitlines()[1:] if line[:1].isdigit() and "." in line.split()[2]]
        wanted = [(str(rank), role) for rank, models in enumerate(layout.models) for role in (*models.split(), "sum")]
        assert [(row[0], row[1]) for row in rows[: len(wanted)]] == wanted
        assert {row[-1] for row in rows[: len(wanted)]} == {str(TOKENS)}


def test_a_node_without_the_server_says_what_it_runs(server, layout):
    if layout.nodes == 1:
        pytest.skip("of several nodes")
    each = len(layout.models) // layout.nodes
    for number, node in enumerate(server.other_nodes, 1):
        assert node.get("/health").ok and node.post("/generate", {"text": "Hi"}).status_code == 404
        [told] = [
            line for line in node.log_text().splitlines() if f": node {number} of {layout.nodes} serves: " in line
        ]
        for rank in range(number * each, (number + 1) * each):
            models = " and the ".join(layout.models[rank].split())
            assert f"rank {rank} on node {number}, which runs the {models}" in told


def test_rows_are_counted_by_one_rank_and_each_model_is_timed_by_one(server, layout):
    """On its node. Kills: rows counted as often as there are ranks, models of other ranks that nobody times."""
    generate(server, "Hi", 0.5, tokens=4)
    first: dict[str, str] = {}
    for rank, models in enumerate(layout.models):
        for role in models.split():
            first.setdefault(role, str(rank))
    samples = [one for node in (server, *server.other_nodes) for one in samples_of(node)]
    timed = [one.labels for one in samples if one.name == "sglang:proxy_model_forward_seconds_count"]
    assert {(labels["role"], labels["tp_rank"]) for labels in timed} == set(first.items())
    assert {one.labels["tp_rank"] for one in samples if one.name == "sglang:proxy_rows_total"} == {"0"}
    ran = {one.labels["role"] for one in samples if one.name.endswith("model_forward_seconds_count") and one.value}
    assert {"base", "expert", "amateur"} <= ran


# Tokens


@pytest.fixture(scope="module")
def expected(reference):
    """Every second case: text and images, each alpha; two gloo ranks are about ten times slower than one."""
    return [(case, oracle_answer(reference, case)) for case in mixed_cases()[::2]]


def test_a_cold_and_a_warm_cache_give_the_oracles_tokens(server, expected, reference):
    """Kills: a small model without some rows of a step, logits of another rank's shard or of another step."""
    server.flush_cache()
    cases = [case for case, _ in expected]
    for _ in ("cold", "warm"):
        for answer, (case, oracle) in zip(ask_all(server, cases), expected, strict=True):
            assert_agrees(answer, oracle, case, reference)
    assert {case.alpha for case in cases} >= {0.0, 0.5, 1.5, -1.0}


@IN_FLOAT32
def test_each_law_gives_the_oracles_tokens(server, reference):
    """Kills: a strength of this rank's logits alone, or one that another rank counts otherwise."""
    asked = [(text, said) for said in SAID for text in ("Hi", "Say more of it, and then count. " * 3)]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda one: server.generate(**body(*one)), asked))
    for answer, (text, said) in zip(answers, asked, strict=True):
        assert_law_is_the_oracles(answer, reference, text, said)


def test_a_prefix_of_the_base_alone_is_no_prefix_of_a_guided_request(server, reference):
    messages, images = chat_messages("Which?", [random_picture(9)]), [random_picture(9)]
    server.flush_cache()
    for alpha, cached in ((0.0, False), (1.5, False), (0.0, True), (1.5, True)):
        answer = server.chat(messages, alpha, logprobs=True)
        oracle = reference.generate(messages, images, alpha=alpha, max_new_tokens=16)
        assert_agrees(answer, oracle, Case("Which?", tuple(images), alpha), reference)
        told = answer["choices"][0]["meta_info"]["cached_tokens"]
        assert told == (len(oracle.input_ids) - 1 if cached else 0)


LONG = 96
STRENGTHS = [0.0, 0.25, 0.0, 0.75, 1.0, 0.0, 1.5, 1.75, 0.0, 2.25, 0.0, 2.75, -0.5, 0.0, -1.0, 0.5]


@pytest.fixture(scope="module")
def long_answers(reference):
    return [
        reference.generate(text, alpha=alpha, max_new_tokens=LONG, stop_at_eos=False)
        for text, alpha in zip(LONG_TEXTS, STRENGTHS, strict=True)
    ]


def test_retracted_requests_give_the_oracles_tokens(server, long_answers, reference):
    """Guided and plain answers that together need several times the room, in one burst."""
    # Of the plain ones some ask for a trace, and are computed by three models.
    wishes = [{"proxy_alpha": alpha, "proxy_trace": at % 4 == 0} for at, alpha in enumerate(STRENGTHS)]
    answers = _long_answers(server, wishes)
    assert sum(answer["meta_info"]["num_retractions"] for answer in answers) > 0, "the load must not have fitted"
    for answer, oracle, alpha in zip(answers, long_answers, STRENGTHS, strict=True):
        assert_same_tokens(answer["output_ids"], oracle, reference, alpha)
    for answer in answers[::4]:
        assert answer["meta_info"]["proxy_trace"]["token_id"] == answer["output_ids"]


def test_experts_give_the_oracles_tokens_when_they_are_retracted_too(server, layout, reference):
    """Kills: an expert's logits of another rank or row, and slots of a request that one of two experts did not fill."""
    if not layout.experts:
        pytest.skip("of layouts with several")
    [named] = layout.experts
    wishes = [{"expert": named}, {"expert": "expert"}, {"experts": {named: 0.8, "expert": 0.7}}] * 4
    said = [{f"proxy_{name}": value for name, value in wish.items()} for wish in wishes]
    answers = _long_answers(server, [{"proxy_alpha": 1.2} | one if "proxy_expert" in one else one for one in said])
    assert sum(answer["meta_info"]["num_retractions"] for answer in answers) > 0, "the load must not have fitted"
    for text, wish, answer in zip(LONG_TEXTS, wishes, answers, strict=False):
        oracle = reference.generate(text, alpha=1.2, max_new_tokens=LONG, stop_at_eos=False, **wish)
        assert_same_tokens(answer["output_ids"], oracle, reference, 1.2, **wish)


def _long_answers(server: Server, wishes: list[dict]) -> list[dict]:
    asked = [{"temperature": 0, "max_new_tokens": LONG, "ignore_eos": True, "custom_params": wish} for wish in wishes]
    return server.generate_at_once(LONG_TEXTS[: len(asked)], asked)


@pytest.mark.parametrize("regex", [None, "[a-z]{24}"])
def test_sampled_tokens_are_the_same_on_every_rank(server, reference, regex):
    """Where a rank went on with tokens of its own, its model's numbers would be those of another text."""
    options = {"temperature": 1.0, "ignore_eos": True} | ({} if regex is None else {"regex": regex})
    alphas = [0.0, 0.5, 1.5, -1.0]
    with ThreadPoolExecutor(len(alphas)) as pool:
        answers = list(pool.map(lambda alpha: generate(server, "Tell", alpha, 24, True, **options), alphas))
    for answer, alpha in zip(answers, alphas, strict=True):
        trace = answer["meta_info"]["proxy_trace"]
        assert len(trace["token_id"]) > 8 and trace["token_id"] == answer["output_ids"]
        assert_is_the_oracles(trace, reference, "Tell", [], alpha)
    assert any(any(answer["meta_info"]["proxy_trace"]["flipped"]) for answer in answers), "not drawn, but greedy"


# What shapes or describes an answer


def _stopped(server: Server) -> list[dict]:
    free = generate(server, "Count", 1.5)
    return [free, generate(server, "Count", 1.5, stop=free["text"][3:6])]


def _next_token(server: Server, alpha: float) -> list:
    """Of a request for no token SGLang counts one where it shared a batch with others, and none where it did not."""
    answer = generate(server, "So", alpha, 0, return_logprob=True, token_ids_logprob=[5, 6])
    return answer["meta_info"]["output_token_ids_logprobs"]


FEATURES = {
    "penalties": lambda s: generate(s, "Say", 0.7, frequency_penalty=0.9, presence_penalty=0.6, repetition_penalty=1.3),
    "penalties at alpha 0": lambda s: generate(s, "Say", 0.0, frequency_penalty=0.9, repetition_penalty=1.3),
    "a bias": lambda s: generate(s, "Say", 0.7, logit_bias={"70": 6.0, "80": 5.0}),
    "a grammar": lambda s: generate(s, "Say", 1.5, regex="[0-9]{12}"),
    "a grammar at alpha 0": lambda s: generate(s, "Say", 0.0, regex="[a-f]{9}"),
    "logprobs": lambda s: generate(
        s, "Why", 0.7, return_logprob=True, top_logprobs_num=3, token_ids_logprob=[7, 8]
    ),
    "logprobs at alpha 0": lambda s: generate(
        s, "Why", 0.0, return_logprob=True, top_logprobs_num=3, token_ids_logprob=[7, 8]
    ),
    "prompt logprobs at alpha 0": lambda s: generate(
        s, "Hello you, what is in it? " * 8, 0.0, return_logprob=True, logprob_start_len=0, top_logprobs_num=2
    ),
    "prompt logprobs at alpha 0, traced": lambda s: generate(
        s, "Hello you, who is it?", 0.0, trace=True, return_logprob=True, logprob_start_len=2
    ),
    "the next token's logprobs": lambda s: _next_token(s, 0.7),
    "the next token's logprobs at alpha 0": lambda s: _next_token(s, 0.0),
    "several samples": lambda s: generate(s, "Tell", 1.5, n=2),
    "several samples at alpha 0": lambda s: generate(s, "Tell", 0.0, n=2),
    "a stop string": _stopped,
}  # fmt: skip


def assert_same(told: Any, wanted: Any, at: str) -> None:
    """The same JSON, with numbers that are near; of `meta_info` what describes the answer, and not how it was made."""
    if isinstance(wanted, dict):
        names = set(wanted) - {
            "id", "e2e_latency", "cached_tokens", "cached_tokens_details", "weight_version", "num_retractions",
            "dp_rank", "decode_throughput",
            *(name for name in wanted if "time" in name or "latency" in name or "ts" in name.split("_")),
            *(name for name in wanted if name.startswith("spec_")),
        }  # fmt: skip
        assert names <= set(told), at
        for name in names:
            assert_same(told[name], wanted[name], f"{at}, {name}")
    elif isinstance(wanted, list):
        assert len(told) == len(wanted), at
        if ON_GPU and "top_logprobs" in at and wanted and isinstance(wanted[0], float):
            # In 16 bits two ids of nearly the same logprob may change places.
            told, wanted = told[:1], wanted[:1]
        for index, (one, other) in enumerate(zip(told, wanted, strict=True)):
            assert_same(one, other, f"{at}, {index}")
    elif isinstance(wanted, float):
        assert told == pytest.approx(wanted, abs=logprob_tolerance(1.5)), at
    else:
        assert told == wanted, at


@pytest.mark.parametrize("feature", FEATURES)
def test_a_request_alone_is_answered_as_by_one_rank(server, single_rank, feature):
    assert_same(FEATURES[feature](server), single_rank[feature], feature)


def test_requests_in_a_crowd_are_answered_as_by_one_rank(server, single_rank, long_answers, reference):
    """All at once, beside guided and plain answers that decode meanwhile."""

    def keep_busy(index: int) -> list[int]:
        return generate(server, LONG_TEXTS[index], STRENGTHS[index], LONG, ignore_eos=True)["output_ids"]

    with ThreadPoolExecutor(len(FEATURES) + 5) as pool:
        busy = [pool.submit(keep_busy, index) for index in range(5)]
        told = {name: pool.submit(ask, server) for name, ask in FEATURES.items()}
    for answer, oracle, alpha in zip(busy, long_answers[:5], STRENGTHS[:5], strict=True):
        assert_same_tokens(answer.result(), oracle, reference, alpha)
    for name, answer in told.items():
        assert_same(answer.result(), single_rank[name], name)


# The end of a request


def endless(server: Server, alpha: float, rid: str):
    params = {"temperature": 0, "max_new_tokens": 600, "ignore_eos": True, "custom_params": {"proxy_alpha": alpha}}
    body = {"text": "Long", "rid": rid, "stream": True, "sampling_params": params}
    return server.post("/generate", body, stream=True)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
@pytest.mark.parametrize("way", ["the client leaves", "it is aborted"])
def test_an_aborted_request_ends_on_every_rank(server, reference, way, alpha):
    rid = f"{way} {alpha}".replace(" ", "-")
    with endless(server, alpha, rid) as stream:
        lines = stream.iter_lines()
        next(lines)  # it is decoding now
        if way == "it is aborted":
            assert server.post("/abort_request", {"rid": rid}).ok
            *_, last = (json.loads(line[6:]) for line in lines if line.startswith(b"data: {"))
            assert last["meta_info"]["finish_reason"]["type"] == "abort"
            assert last["meta_info"]["completion_tokens"] < 600
    server.flush_cache()  # flushing needs every request to be gone
    oracle = reference.generate("After it", alpha=1.5, max_new_tokens=8)
    assert_same_tokens(generate(server, "After it", 1.5, 8)["output_ids"], oracle, reference, 1.5)
