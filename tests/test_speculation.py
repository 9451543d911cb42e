"""A server that speculates gives the tokens of one that doesn't, whatever is drafted.

Its drafts are wrong here on purpose: at random, the end of the answer, or wrong every other time, and now and then
there are none. Where a test has told the answer beforehand, all are right. The laws of the other files are asked of it
as they stand (`pytest --speculate K` asks all of them, with drafts by the expert).
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from test_laws import test_a_conversation_may_change_its_strength_at_every_turn  # noqa: F401
from test_oracle import (  # noqa: F401
    expected,
    test_a_cold_and_a_warm_cache_give_the_oracles_tokens,
    test_a_conversation_over_images_in_several_turns,
    test_one_request_alone_gives_the_same_tokens_as_in_a_crowd,
    test_the_ablation_without_the_amateur,
)
from test_sampling import (  # noqa: F401
    test_json_schema_regex_and_ebnf_are_obeyed_and_guided,
    test_logit_bias_is_added_once,
    test_logprobs_are_of_the_fused_distribution,
    test_min_new_tokens_holds_the_end_back,
    test_penalties_apply_once_to_the_fused_row,
    test_repetition_penalty_scales_the_fused_row_once,
    test_stop_strings_and_stop_tokens,
)
from test_served_laws import (  # noqa: F401
    test_a_trace_says_the_strength_of_each_token,
    test_each_law_gives_the_oracles_tokens_beside_all_others_cold_and_warm,
)
from test_trace import (  # noqa: F401
    test_each_of_several_samples_has_its_own,
    test_it_is_what_the_oracle_says,
    test_it_shows_the_models_before_whatever_shapes_the_sampling,
    test_only_the_request_that_asked_gets_it_and_each_its_own,
    test_the_last_chunk_of_a_stream_carries_the_trace,
)

from cases import Case, ask_all, assert_agrees, assert_same_tokens, logprob_tolerance, oracle_answer, output_ids
from chi_square import SIGNIFICANCE, p_value
from live_metrics import counting, samples_of
from mixed_chats import ask_mixed_chats
from servers import COMMON, ON_GPU, Server, chat_messages, command, sabotaged, serving
from sgl_proxythinker.config import MAX_DRAFTS, ProxyConfig
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.policy.speculation import settle_speculation
from sgl_proxythinker.programs.pictures import random_picture
from slot_watch import WATCHES_SLOTS

pytestmark = pytest.mark.xdist_group("speculation")

PATHS = {"expert_path": "E", "amateur_path": "A"}


def asking(drafts: str) -> ProxyConfig:
    return ProxyConfig(**PATHS, speculate=drafts)


K = 3
# In place of the expert's choice; the tokenizer of the random triple ends an answer with this id. And cycles go without
# drafts at random, whatever they cost. A request whose answer lies in the folder TOLD, in a file of its rid, gets the
# tokens of that one in every cycle.
DRAFTS = """
import sgl_proxythinker.launch.processes as processes

_prepare = processes._prepare


def prepare(server_args):
    _prepare(server_args)
    if hasattr(server_args, "_proxythinker"):
        import itertools
        import json
        import pathlib
        import torch
        from sgl_proxythinker.requests import request_ids
        from sgl_proxythinker.speculation.worker import SpeculativeWorker

        print("drafts are wrong on purpose", flush=True)
        calls = itertools.count()

        def choose(worker, logits):
            best = logits.argmax(-1)
            at_random = torch.randint_like(best, worker._target_worker.vocab_size)
            end = torch.full_like(best, next(iter(worker._target_worker.model_runner.model_config.hf_eos_token_id)))
            half = torch.where(torch.rand_like(logits[:, 0]) < 0.5, at_random, best)
            return (at_random, end, half, best)[next(calls) // 5 % 4]

        def told(req):
            file = pathlib.Path(TOLD, request_ids.told(req.rid))
            return json.loads(file.read_text()) if file.exists() else None

        write_ahead = SpeculativeWorker._write_ahead

        def write_what_is_told(worker, drafter, reqs, chain, pending, each):
            answers = [told(req) for req in reqs]
            written = [length - len(req.origin_input_ids) for length, req in zip(chain.seq_lens.tolist(), reqs)]
            offsets = itertools.count(1)

            def choose_what_is_told(logits):
                drafts, offset = choose(worker, logits), next(offsets)
                for row, (answer, count) in enumerate(zip(answers, written)):
                    if answer and count + offset < len(answer):
                        drafts[row] = answer[count + offset]
                return drafts

            worker._choose = choose_what_is_told
            return write_ahead(worker, drafter, reqs, chain, pending, each)

        SpeculativeWorker._write_ahead = write_what_is_told

        import random
        from sgl_proxythinker.speculation.draft_choice import DraftChoice

        choose_by_times = DraftChoice.choose

        def choose_at_random(choice, requests, now_s):
            choose_by_times(choice, requests, now_s)
            return choice._drafts if is_told else random.choice((0, choice._drafts))

        DraftChoice.choose = choose_at_random
        drafts_of, is_told = SpeculativeWorker._drafts_of, []

        def drafts_of_those_told(worker, reqs):
            is_told[:] = [req.rid for req in reqs if told(req)]
            return drafts_of(worker, reqs)

        SpeculativeWorker._drafts_of = drafts_of_those_told
        watch_slots()


processes._prepare = prepare
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Where a test tells what is to be drafted: the ids of an answer, as JSON in a file of its request's id."""
    return tmp_path_factory.mktemp("told")


@pytest.fixture(scope="module")
def guided(triple, told, tmp_path_factory):
    """In the place of the main server, for the laws of the other files."""
    folder = tmp_path_factory.mktemp("speculation")
    flags = (*COMMON, "--chunked-prefill-size", "64", "--enable-metrics", "--proxy-speculate", "auto")
    arguments = sabotaged(
        folder,
        f"TOLD = {str(told)!r}\n{DRAFTS}\n{WATCHES_SLOTS}",
        command(triple.base, (triple.expert, triple.amateur), *flags),
    )
    with serving(arguments, folder / "log") as server:
        yield server


def test_it_says_that_it_speculates(guided):
    assert guided.get("/server_info").json()["proxy"]["speculate"] == "auto"
    meta = guided.generate(text="Hi", sampling_params={"temperature": 0, "max_new_tokens": 12})["meta_info"]
    assert 0 < meta["spec_verify_ct"] <= meta["completion_tokens"]
    assert "sglang:spec_accept_length" in guided.get("/metrics").text
    assert "drafts are wrong on purpose" in guided.log_text(), "else the laws here say less than they seem to"


def test_cycles_are_counted_by_what_they_run(guided):
    """Kills: rows of a chain that count as one, and steps without drafts that count as chains."""
    params = {"temperature": 0, "max_new_tokens": 40, "ignore_eos": True}
    with counting(guided) as grown:
        guided_cycles, cycles_alone = (
            guided.generate(text="Hi", sampling_params={**params, "custom_params": {"proxy_alpha": alpha}})[
                "meta_info"
            ]["spec_verify_ct"]
            for alpha in (0.5, 0.0)
        )
    tokens = {one.value for one in samples_of(guided) if one.name == "sglang:spec_num_draft_tokens"}.pop()
    rows = {phase: grown("sglang:proxy_rows_total", guided="true", phase=phase) for phase in ("decode", "verify")}
    # With overlap a cycle more is run, whose tokens nobody gets.
    assert rows["verify"] and rows["verify"] / tokens + rows["decode"] - guided_cycles in (0, 1)
    assert grown("sglang:proxy_rows_total", guided="false", phase="verify") == 0, "auto drafts for nobody at alpha 0"
    assert grown("sglang:proxy_rows_total", guided="false", phase="decode") - cycles_alone in (0, 1)
    assert grown("sglang:spec_verify_calls_total") == guided_cycles + cycles_alone


def test_what_the_dashboard_asks_of_speculation_is_there(guided):
    pytest.importorskip("promql_parser", reason="hosts with GPUs have no reader of PromQL")
    from queries import complaints, of_dashboard

    guided.generate(text="Hi", sampling_params={"max_new_tokens": 8})
    guided.flush_cache()  # it has ended and is counted
    asked = [query for query in of_dashboard() if query.row.startswith("Speculation")]
    samples = samples_of(guided)
    assert asked and not [complaint for query in asked for complaint in complaints(query, samples)]


def test_what_is_drawn_after_drafts_is_of_the_fused_distribution(guided, reference):
    """Kills: a token drawn from the row of another position, accepted because it is likely, or twice."""
    alpha, draws, kept = 0.7, 2400, 2
    sequences: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        longer = {}
        for ids, mass in sequences.items():
            row = reference.fused_logits("Say", continuation=list(ids), alpha=alpha)[-1, : len(reference.tokenizer)]
            values, best = row.double().topk(kept)
            for token, share in zip(best.tolist(), values.softmax(-1).tolist(), strict=True):
                longer[(*ids, token)] = mass * share
        sequences = longer
    params = {"max_new_tokens": 3, "temperature": 1.0, "top_k": kept, "ignore_eos": True}
    params["custom_params"] = {"proxy_alpha": alpha}
    drawn = Counter()
    for _ in range(draws // 200):
        answers = guided.generate(text=["Say"] * 200, sampling_params=params)
        drawn.update(tuple(answer["output_ids"]) for answer in answers)
    order = sorted(sequences)
    assert set(drawn) <= set(order), "a token that is not among the two most likely was drawn"
    counts = Counter({place: drawn[ids] for place, ids in enumerate(order)})
    assert p_value(counts, torch.tensor([sequences[ids] for ids in order])) > SIGNIFICANCE


def test_many_answers_at_once_at_their_own_strengths_end_where_they_end(guided, reference):
    """Kills: rows or sampling of one request taken for another's, tokens past an end or past the number asked for."""
    wanted = []
    for number, alpha in product(range(4), (0.0, 0.5, 1.5, -1.0)):
        wanted.append(Case(f"Tell {number}", (random_picture(number),) if number % 2 else (), alpha))

    lengths = [3 + 5 * (place % 4) for place in range(len(wanted))]

    def ask(case: Case, tokens: int):
        return guided.chat(case.messages(), case.alpha, max_tokens=tokens, logprobs=True)

    def draw(number: int):
        params = {"temperature": 5.0, "max_new_tokens": 20, "logit_bias": {str(number): 3.0}}
        return guided.generate(text=f"Draw {number}", sampling_params=params)

    with ThreadPoolExecutor(2 * len(wanted)) as pool:
        # Beside them others are drawn, at a temperature and with a bias of their own.
        others = [pool.submit(draw, number) for number in range(len(wanted))]
        answers = list(pool.map(ask, wanted, lengths))
        assert all(other.result()["output_ids"] for other in others)
    for case, tokens, answer in zip(wanted, lengths, answers, strict=True):
        assert_agrees(answer, oracle_answer(reference, case, max_new_tokens=tokens), case, reference)


def test_right_drafts_all_count(guided, reference, told):
    """Kills: a right draft that is thrown away, and one that is read at another place than its own."""
    each = guided.get("/server_info").json()["speculative_num_draft_tokens"]
    tokens = 1 + 5 * each  # one of the prefill, and what five cycles bring at most
    cases = [
        Case(f"Tell {number}", (random_picture(number, 56, 56),) * (number % 3), alpha)
        for number, alpha in enumerate((0.5, 1.5, -1.0, 0.5, 1.5, -1.0))
    ]
    oracles = [oracle_answer(reference, case, max_new_tokens=tokens, stop_at_eos=False) for case in cases]

    def ask(place: int):
        (told / f"right-{place}").write_text(json.dumps(oracles[place].token_ids))
        extra = {"ignore_eos": True, "rid": f"right-{place}"}
        return guided.chat(
            cases[place].messages(), cases[place].alpha, max_tokens=tokens, logprobs=True, extra_body=extra
        )

    def ask_another(number: int):
        """Beside them: its drafts are wrong, or it has none."""
        return guided.chat(chat_messages(f"Beside {number}"), number / 4, max_tokens=24)

    with ThreadPoolExecutor(12) as pool:
        others = [pool.submit(ask_another, number) for number in range(6)]
        answers = list(pool.map(ask, range(len(cases))))
        assert all(other.result()["usage"]["completion_tokens"] for other in others)
    for case, oracle, answer in zip(cases, oracles, answers, strict=True):
        assert_agrees(answer, oracle, case, reference)
        if output_ids(answer["choices"][0]) == oracle.token_ids:  # on a GPU it may not be, and is told wrong then
            meta = answer["choices"][0]["meta_info"]
            assert meta["spec_verify_ct"] == 5 and meta["spec_accept_rate"] == 1, (case, meta)


@pytest.mark.parametrize(
    "shape",
    [{"regex": "[a-z ]{30}"}, {"repetition_penalty": 1.3, "frequency_penalty": 0.5}, {"logit_bias": {"70": 4.0}}],
    ids=["grammar", "penalties", "bias"],
)
@pytest.mark.skipif(ON_GPU, reason="in 16 bits ids of nearly the same logit change places")
def test_right_drafts_all_count_under_what_shapes_an_answer(guided, told, shape):
    """Kills: a right draft that a grammar's mask or the counts of a penalty, a place too early or too late, forbid."""
    each = guided.get("/server_info").json()["speculative_num_draft_tokens"]
    params = {"temperature": 0, "max_new_tokens": 30, "custom_params": {"proxy_alpha": 0.7}, **shape}
    first = guided.generate(text="Say", sampling_params=params)["output_ids"]
    rid = f"right-{'-'.join(shape)}"
    (told / rid).write_text(json.dumps(first))
    again = guided.generate(text="Say", rid=rid, sampling_params=params)
    assert again["output_ids"] == first and len(first) > each
    assert again["meta_info"]["spec_verify_ct"] == math.ceil((len(first) - 1) / each)


def test_an_end_that_cannot_be_decided_holds_nothing_wherever_in_a_chain_it_is(guided, reference, told):
    """Kills: slots of the tokens behind it, which nobody frees; a server with such a leak ends once nothing runs."""
    each = guided.get("/server_info").json()["speculative_num_draft_tokens"]

    def ask(begins_with: int):
        text, rid = "b" * begins_with + "a" * 400, f"undecided-{begins_with}"
        (told / rid).write_text(json.dumps(reference.tokenizer(text)["input_ids"]))
        params = {"max_new_tokens": 400, "regex": text, "stop_regex": "(a{10}|a{11}|a{7}){90}"}
        return guided.post("/generate", {"text": "x", "rid": rid, "sampling_params": params})

    with ThreadPoolExecutor(each) as pool:
        for response in pool.map(ask, range(each)):
            assert response.status_code == 400 and "too many ways to match" in response.text, response.text
    assert resting_load(guided) == {"num_running_reqs": 0, "num_waiting_reqs": 0, "num_used_tokens": 0}
    assert guided.generate(text="x", sampling_params={"max_new_tokens": 1})["output_ids"]


@pytest.mark.parametrize("count", [120, pytest.param(500, marks=pytest.mark.rare)])
def test_nothing_is_held_after_many_mixed_chats_of_which_some_are_left_or_aborted(guided, reference, count):
    """Kills: slots of rejected drafts, or of an aborted request's chain, that nobody frees, or that are freed twice.

    A server whose slots are not each free or in the tree, once, ends when nothing runs (`test_leaked_slots.py`). What
    SGLang takes for right is seen in its load: a prefix that nobody reads any more and that can't be evicted.
    """
    ends = ask_mixed_chats(guided, count, at_once=16)
    assert ends["aborted"] and ends["left"] and ends["read"] > count // 2, ends
    assert resting_load(guided) == {"num_running_reqs": 0, "num_waiting_reqs": 0, "num_used_tokens": 0}
    guided.flush_cache()  # not before: it frees what is held
    assert "memory leak" not in guided.log_text()
    cases = [Case(f"After {number}", (random_picture(3),) * (number % 2), number / 4 - 0.5) for number in range(6)]
    for case, answer in zip(cases, ask_all(guided, cases), strict=True):
        assert_agrees(answer, oracle_answer(reference, case), case, reference)


def resting_load(server: Server, within_s: float = 60) -> dict[str, int]:
    """What runs, waits and is held once nothing is, or what still is after so long.

    Tokens of the tree that can be evicted are not held.
    """
    deadline = time.monotonic() + within_s
    while True:
        [told] = server.get("/v1/loads").json()["loads"]
        load = {name: told[name] for name in ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")}
        if not any(load.values()) or time.monotonic() > deadline:
            return load
        time.sleep(0.2)


def test_a_request_that_fills_the_pool_ends_by_its_length(guided):
    """Kills: one that is admitted without room for its last chains, and aborted near its end."""
    params = {"max_new_tokens": 96, "ignore_eos": True, "temperature": 0}
    answer = guided.generate(input_ids=[17 + number % 50 for number in range(4000)], sampling_params=params)
    meta = answer["meta_info"]
    assert meta["finish_reason"]["type"] == "length" and 60 < meta["completion_tokens"] < 96


def test_the_longest_chain_fits_the_table_of_requests_at_the_end_of_the_context(sglang):
    """Kills: a bound on K that SGLang's table of requests has no room for, on ranks with and without the base."""
    from sglang.srt.mem_cache.allocation_sizing import get_req_to_token_extra_context_len

    for algorithm in ("PROXYTHINKER", None):
        server_args = SimpleNamespace(
            max_speculative_num_draft_tokens=MAX_DRAFTS + 1, speculative_algorithm=algorithm, page_size=1
        )
        # A cycle begins four tokens before the end of the context at the latest, and reserves two chains.
        assert get_req_to_token_extra_context_len(server_args) >= 2 * (MAX_DRAFTS + 1) - 4


def test_a_second_turn_over_what_a_chain_wrote_is_the_oracles(guided, reference):
    """Kills: KV of a rejected draft that a prefix is read from."""
    guided.flush_cache()
    for alpha in (0.5, 0.0):
        messages = chat_messages("Say more")
        answer = guided.chat(messages, alpha, max_tokens=24)
        text = answer["choices"][0]["message"]["content"]
        turns = [*messages, {"role": "assistant", "content": text}, *chat_messages("And then?")]
        oracle = reference.generate(turns, alpha=alpha, max_new_tokens=16)
        follow_up = guided.chat(turns, alpha, logprobs=True)
        assert_same_tokens(output_ids(follow_up["choices"][0]), oracle, reference, alpha)
        assert follow_up["choices"][0]["meta_info"]["cached_tokens"] >= answer["usage"]["prompt_tokens"]


def test_a_grammar_without_an_end_ends_its_own_request_only(guided):
    """Kills: an error of a grammar that a draft has led there, raised inside of a step of all."""
    dead = {"ebnf": 'root ::= "a" "b" x\nx ::= x', "temperature": 0, "max_new_tokens": 8}
    bodies = [{"text": "Say", "sampling_params": dead}, {"text": "Say", "sampling_params": {"max_new_tokens": 8}}]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: guided.post("/generate", body), bodies * 4))
    assert [answer.status_code for answer in answers] == [400, 200] * 4


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_several_answers_may_have_a_grammar(guided, alpha):
    """Kills: a grammar that reads the token of what SGLang sends ahead of several samples, which draws none."""
    params = {"n": 2, "regex": "(yes|no)", "max_new_tokens": 8, "custom_params": {"proxy_alpha": alpha}}
    answers = guided.generate(text="Say", sampling_params=params)
    assert len(answers) == 2 and {answer["text"] for answer in answers} <= {"yes", "no"}


@pytest.mark.skipif(not ON_GPU, reason="graphs need a GPU")
def test_cycles_run_cuda_graphs(guided):
    params = {"temperature": 0, "max_new_tokens": 200, "ignore_eos": True, "custom_params": {"proxy_alpha": 0.5}}
    guided.generate(text="Tell", sampling_params=params)
    said = [line for line in guided.log_text().splitlines() if "Decode batch" in line]
    assert said and all("cuda graph: True" in line for line in said)


def test_scoring_is_at_no_temperature(guided, reference):
    """Kills: log probabilities of a request that only scores, after what shapes a token that is drawn."""
    params = {"max_new_tokens": 0, "temperature": 0.4, "custom_params": {"proxy_alpha": 0.7}}
    body = {"text": "Say", "sampling_params": params, "return_logprob": True, "token_ids_logprob": [17, 65, 90]}
    [told] = guided.generate(**body)["meta_info"]["output_token_ids_logprobs"]
    row = reference.fused_logits("Say", alpha=0.7)[-1, : len(reference.tokenizer)].log_softmax(-1)
    for logprob, token, _ in told:
        assert logprob == pytest.approx(row[token].item(), abs=logprob_tolerance(0.7))


def test_drafts_are_not_tried_for_streams_with_an_interval_alone(guided):
    """They get one token a cycle (`test_tiny_served.py`)."""
    params = {"max_new_tokens": 24, "ignore_eos": True, "stream_interval": 4, "custom_params": {"proxy_alpha": 0.5}}
    with counting(guided) as grown:
        response = guided.post("/generate", {"text": "Say", "stream": True, "sampling_params": params}, stream=True)
        assert list(response.iter_lines())
    assert grown("sglang:proxy_rows_total", guided="true", phase="verify") == 0
    assert grown("sglang:proxy_rows_total", guided="true", phase="decode") >= 23


@pytest.mark.parametrize(
    ("given", "attention_backend", "complaint"),
    [
        ({}, "flashinfer", "not tried with --attention-backend flashinfer here, .* Use one of fa3, triton, or"),
        ({}, "torch_native", "not tried with --attention-backend torch_native here, .* Use one of fa3, triton, or"),
        ({}, "ascend", "not tried with --attention-backend ascend here, .* Use one of fa3, triton, or"),
        ({"enable_mixed_chunk": True}, "fa3", "--enable-mixed-chunk doesn't go with --proxy-speculate"),
        ({"prefill_attention_backend": "triton"}, "fa3", "--prefill-attention-backend doesn't go with"),
        ({"decode_attention_backend": "triton"}, "fa3", "--decode-attention-backend doesn't go with"),
        ({"kv_cache_dtype": "fp8_e5m2"}, "triton", "--kv-cache-dtype fp8_e5m2 doesn't go with --proxy-speculate"),
        ({"stream_interval": 8}, "fa3", "--stream-interval 8 doesn't go with"),
    ],
)
def test_what_it_was_not_tried_with_is_refused(given, attention_backend, complaint):
    with pytest.raises(LaunchError, match=complaint):
        settle_speculation(asking("3"), given, attention_backend, on_cpu=False)
    config, why_not = settle_speculation(ProxyConfig(**PATHS), given, attention_backend, on_cpu=False)
    assert config.describe()["speculate"] == "off" and re.search(complaint.split(" Use ")[0][:40], why_not)
    off = ProxyConfig(**PATHS, speculate="off")
    assert settle_speculation(off, given, attention_backend, on_cpu=False) == (off, None)


def test_a_batch_that_is_too_large_for_a_graph_is_not_drafted_for(sglang):
    """Kills: a burst of short requests whose rows of chains are in no plan. Its steps are no news of the other ways."""
    from sgl_proxythinker.speculation.draft_choice import PERIOD
    from sgl_proxythinker.speculation.worker import SpeculativeWorker

    decode = SimpleNamespace(max_bs=4)
    args = SimpleNamespace(
        device="cpu",
        speculative_num_steps=3,
        speculative_num_draft_tokens=4,
        cuda_graph_config=SimpleNamespace(decode=decode),
    )
    models = SimpleNamespace(models={}, primary=SimpleNamespace(runner=None))
    config = SimpleNamespace(chooses_drafts=True)
    placement = SimpleNamespace(world_size=1)
    runner = SimpleNamespace(max_running_requests=2048)
    target = SimpleNamespace(
        ensemble=models, head_rows=8, config=config, placement=placement, rank=0, model_runner=runner
    )
    worker = SpeculativeWorker(args, 0, None, 0, target)
    one = SimpleNamespace(extra_key=None, stream=False)

    def drafts_of(requests: int) -> set[int]:
        return {worker._drafts_of([one] * requests) for _ in range(20 * PERIOD)}

    args.device = "cuda"
    assert drafts_of(5) == drafts_of(64) == {0} and 3 in drafts_of(4)
    args.device = "cpu"
    assert 3 in drafts_of(64), "no graphs there, and the plan is for all that may run"


@pytest.mark.parametrize(
    ("device", "given", "speculate", "running"),
    [
        pytest.param("cuda", None, "3", 128, id="on a GPU"),
        pytest.param("cuda", 200, "3", 200, id="as was asked for"),
        pytest.param("cuda", None, "auto", None, id="auto, which drafts for no larger batch"),
        pytest.param("cpu", None, "3", None, id="on a CPU, whose plan is for all"),
    ],
)
def test_no_more_requests_run_than_have_their_chains_in_the_plan(sglang, device, given, speculate, running):
    """Kills: a burst of short requests on a server that always drafts, which takes memory that is in no plan."""
    from sglang.srt.server_args import ServerArgs

    from sgl_proxythinker.launch.server_args import _speculate

    decode = SimpleNamespace(max_bs=128)
    server_args = ServerArgs(
        model_path="none",
        device=device,
        max_running_requests=given,
        cuda_graph_config=SimpleNamespace(decode=decode),
    )
    _speculate(server_args, asking(speculate))
    assert server_args.max_running_requests == running
    assert server_args.speculative_num_draft_tokens == 4


def test_where_the_crowd_may_not_matter_the_load_does_not_choose():
    given = {"enable_deterministic_inference": True}
    assert settle_speculation(asking("3"), given, "fa3", on_cpu=False) == (asking("3"), None)
    with pytest.raises(LaunchError, match="--enable-deterministic-inference doesn't go with --proxy-speculate auto"):
        settle_speculation(asking("auto"), given, "fa3", on_cpu=False)
    config, why_not = settle_speculation(ProxyConfig(**PATHS), given, "fa3", on_cpu=False)
    assert not config.drafts and why_not.startswith("--enable-deterministic-inference doesn't go with")


@pytest.mark.parametrize(("attention_backend", "on_cpu"), [("torch_native", True), ("fa3", False), ("triton", False)])
@pytest.mark.parametrize("config", [ProxyConfig(**PATHS), asking("auto"), asking("3")], ids=["default", "auto", "3"])
def test_what_it_was_tried_with_is_not(attention_backend, on_cpu, config):
    given = {"enable_mixed_chunk": False, "page_size": 16}
    assert settle_speculation(config, given, attention_backend, on_cpu) == (config, None)
