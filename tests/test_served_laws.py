"""Laws of strength, clips and cuts of the implausible, on a server: the oracle's tokens for each, beside all others."""

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, product

import pytest
import sglang as sgl
import torch

from cases import logprob_tolerance
from servers import ON_GPU
from sgl_proxythinker import ProxyBackend, proxy_gen
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.programs.pictures import data_url, random_picture

# Whether an entropy is above a bound, or how far two models are apart, may be another answer in 16 bits.
IN_FLOAT32 = pytest.mark.skipif(ON_GPU, reason="compared with the oracle where both compute in float32")
pytestmark = [pytest.mark.xdist_group("guided"), IN_FLOAT32]

ALPHA, TOKENS = 0.9, 14
PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
LONG = "Look at every picture, count what you see, and say it in order. " * 4
SCHEDULE = {"kind": "schedule", "points": [[0, 0.0], [3, 2.0], [9, -1.0]]}
DIVERGENCE = {"kind": "divergence", "scale": 10.0, "low": -1.0, "warmup_tokens": 3}
ENTROPY = {"kind": "entropy", "above": 1.9}
# Each is written by the random triple and begins and ends in the middle of tokens: " question", "al", " o" after
# "Hi"; "er", "des" and "gl", "The" after LONG; "The", "gle" after the first picture.
MARKERS = [
    {"proxy_law": {"kind": "schedule", "after": {"text": "onal ", "alpha": -1.0}}, "proxy_alpha": ALPHA},
    {"proxy_law": SCHEDULE | {"after": {"text": "rde", "alpha": 1.5}}},
    {"proxy_law": {"kind": "schedule", "after": {"text": "lTh", "alpha": 1.5}}, "proxy_alpha": 0.0},
    {"proxy_law": [{"kind": "schedule", "after": {"text": "hegl", "alpha": 0.2}}, ENTROPY], "proxy_alpha": ALPHA},
]
SAID = [
    {},
    {"proxy_alpha": 0.0},
    {"proxy_law": SCHEDULE},
    {"proxy_law": DIVERGENCE, "proxy_alpha": ALPHA},
    {"proxy_law": ENTROPY, "proxy_alpha": ALPHA},
    {"proxy_law": ENTROPY, "proxy_alpha": ALPHA, "proxy_amateur_alpha": 0.3},
    {"proxy_law": [SCHEDULE, ENTROPY]},
    {"proxy_law": [DIVERGENCE, {"kind": "entropy", "above": 1.2}], "proxy_clip": 0.8},
    {"proxy_alpha": ALPHA, "proxy_clip": 0.5},
    *MARKERS,
    {"proxy_alpha": 5.0, "proxy_plausible": 0.5},
    {"proxy_alpha": 2.0, "proxy_amateur_alpha": 0.3, "proxy_plausible": 0.2},
    {"proxy_law": [SCHEDULE, ENTROPY], "proxy_clip": 2.0, "proxy_plausible": 0.7},
    {"proxy_alpha": 0.0, "proxy_plausible": 0.9},
]
# Of which two are the base's greedy answer, with other probabilities.
DISTINCT = len(SAID) - 1


def body(text, said, picture=None, **more):
    params = {"temperature": 0, "max_new_tokens": TOKENS, "ignore_eos": True, "custom_params": said or None, **more}
    shown = {} if picture is None else {"image_data": [data_url(picture)]}
    return {"text": text, "sampling_params": params, "return_logprob": True, **shown}


def assert_law_is_the_oracles(answer, reference, text, said, picture=None):
    """Each token is the one that the oracle chooses after those before it, and as likely."""
    asked = {"alpha": 0.5} | {name.removeprefix("proxy_"): value for name, value in said.items()}
    tokens = answer["output_ids"]
    assert len(tokens) == TOKENS
    rows = reference.fused_logits(text, [] if picture is None else [picture], tokens[:-1], **asked)
    assert tokens == rows.argmax(-1).tolist(), (text, said)
    told = [logprob for logprob, _, _ in answer["meta_info"]["output_token_logprobs"]]
    wanted = rows[:, : len(reference.tokenizer)].log_softmax(-1)[range(TOKENS), tokens].tolist()
    assert told == pytest.approx(wanted, abs=10 * logprob_tolerance(4.0)), (text, said)


def assert_all_differ(answers):
    """In tokens, or by more in their log probabilities than what is compared with the oracle may be off."""
    for one, other in combinations(answers, 2):
        of_one, of_other = (
            [logprob for logprob, _, _ in answer["meta_info"]["output_token_logprobs"]] for answer in (one, other)
        )
        assert one["output_ids"] != other["output_ids"] or of_one != pytest.approx(of_other, abs=0.05)


def written(reference, answer) -> str:
    return reference.tokenizer.decode(answer["output_ids"])


def prompts():
    picture = random_picture(2, 84, 112)
    return [("Hi", None), (LONG, None), (f"{PLACE}What is it?", picture), (f"{LONG}{PLACE}", picture)]


def ask_all_cold_and_warm(server, reference, prompts, wishes):
    """Every wish of every prompt at once, twice; the oracle's tokens. Returns what was asked, and the first answers."""
    asked = [(text, said, picture) for (text, picture), said in product(prompts, wishes)]
    server.flush_cache()

    def ask_all():
        with ThreadPoolExecutor(len(asked)) as pool:
            return list(pool.map(lambda one: server.generate(**body(*one)), asked))

    cold, warm = ask_all(), ask_all()
    for one, first, second in zip(asked, cold, warm, strict=True):
        assert_law_is_the_oracles(first, reference, *one)
        assert second["output_ids"] == first["output_ids"], one[:2]
    return asked, cold


def different_answers(asked, answers):
    """How many there are to the long prompt."""
    of_long = [answer["output_ids"] for (text, _, _), answer in zip(asked, answers, strict=True) if text == LONG]
    return len(set(map(tuple, of_long)))


@IN_FLOAT32  # where another file takes it up, too
def test_each_law_gives_the_oracles_tokens_beside_all_others_cold_and_warm(guided, reference):
    """Kills: one row's law for another's, a position of the batch, a chunk, a cached prefix or the prompt."""
    asked, cold = ask_all_cold_and_warm(guided, reference, prompts(), SAID)
    assert different_answers(asked, cold) >= DISTINCT - 2, "the laws differ in what they say"
    for marker in MARKERS:
        texts = [written(reference, answer) for (_, said, _), answer in zip(asked, cold, strict=True) if said == marker]
        law = marker["proxy_law"]
        marked = (law[0] if isinstance(law, list) else law)["after"]["text"]
        assert any(marked in text and not text.endswith(marked) for text in texts), f"nobody writes {marked!r}"


def test_alone_it_is_what_it_is_in_a_crowd(guided, reference):
    for said in SAID[2:5]:
        assert_law_is_the_oracles(guided.generate(**body("Tell", said)), reference, "Tell", said)


def test_each_law_gives_the_oracles_tokens_in_samples_and_in_a_stream(guided, reference):
    """Kills: a law, a clip or a cut of the first sample alone, and what a stream is told of another token's."""

    def samples(said):
        return guided.generate(**body("Hi", said, n=2))

    def streamed(said):
        response = guided.post("/generate", body("Hi", said) | {"stream": True}, stream=True)
        [*_, last] = [line for line in response.iter_lines() if line.startswith(b"data: {")]
        return json.loads(last.removeprefix(b"data: "))

    with ThreadPoolExecutor(2 * len(SAID)) as pool:
        several, streams = pool.map(samples, SAID), pool.map(streamed, SAID)
        for said, both, stream in zip(SAID, several, streams, strict=True):
            assert_law_is_the_oracles(both[0], reference, "Hi", said)
            assert [both[1]["output_ids"], stream["output_ids"]] == [both[0]["output_ids"]] * 2, said


def test_each_law_gives_the_oracles_tokens_under_a_grammar(guided, reference):
    """The likeliest of the fused row among what the grammar leaves, and of that only what the base finds plausible.

    Kills: a mask that takes a row's law away, a strength of an entropy of what the mask leaves, a cut before it.
    """
    letters = 12
    shape = {"regex": f"[a-z ]{{{letters}}}", "ignore_eos": False}
    texts = [reference.tokenizer.decode([token]) for token in range(len(reference.tokenizer))]
    wishes = [said for said in SAID if said not in MARKERS]
    with ThreadPoolExecutor(len(wishes)) as pool:
        answers = list(pool.map(lambda said: guided.generate(**body("Say", said, **shape)), wishes))
    for said, answer in zip(wishes, answers, strict=True):
        tokens = answer["output_ids"]
        asked = {"alpha": 0.5} | {name.removeprefix("proxy_"): value for name, value in said.items()}
        share = asked.pop("plausible", 0)
        rows = reference.fused_logits("Say", continuation=tokens[:-1], **asked)
        base, _, _ = reference.logits("Say", continuation=tokens[:-1])
        left = letters
        for place, token in enumerate(tokens):
            fits = [
                bool(re.fullmatch(f"[a-z ]{{1,{left}}}", text)) if left else one in reference.end_ids
                for one, text in enumerate(texts)
            ]
            allowed = torch.tensor(fits).nonzero()[:, 0]
            likely = base[place, allowed]
            if share:
                allowed = allowed[likely >= likely.max() + math.log(share)]
            assert token == allowed[rows[place, allowed].argmax()], (said, place)
            left -= len(texts[token]) if left else 0
        assert answer["text"] == "" or re.fullmatch("[a-z ]+", answer["text"])
    assert len({tuple(answer["output_ids"]) for answer in answers}) > 6, "the laws differ in what they say"


def test_several_samples_count_their_own_tokens(guided):
    """Kills: a position that is the batch's."""
    said = {"proxy_law": {"kind": "schedule", "points": [[5, 0.0], [6, 3.0]]}}
    asked = body("Count", said, n=3, temperature=1.0, seed=None, max_new_tokens=40)
    asked["sampling_params"] = {name: value for name, value in asked["sampling_params"].items() if name != "seed"}
    answers = guided.generate(**asked)
    greedy = guided.generate(**body("Count", said, n=3))
    assert len({tuple(answer["output_ids"]) for answer in answers}) == 3
    assert len({tuple(answer["output_ids"]) for answer in greedy}) == 1


def test_a_stream_says_the_same(guided):
    asked = body("Tell me", {"proxy_law": SCHEDULE})
    whole = guided.generate(**asked)["output_ids"]
    response = guided.post("/generate", asked | {"stream": True}, stream=True)
    chunks = [line for line in response.iter_lines() if line.startswith(b"data: {")]
    assert json.loads(chunks[-1].removeprefix(b"data: "))["output_ids"] == whole


def test_a_marker_counts_from_the_token_after_the_one_that_ends_it(guided, reference):
    """In each sample and each stream; the text of a prompt is no marker, also where another request has written it."""
    traced = MARKERS[0] | {"proxy_trace": True}
    alphas = [ALPHA] * 6 + [-1.0] * (TOKENS - 6)
    asked = body("Hi", traced, n=2)
    several = guided.generate(**asked)
    for answer in several:
        assert answer["meta_info"]["proxy_trace"]["alpha"] == pytest.approx(alphas)
        assert_law_is_the_oracles(answer, reference, "Hi", MARKERS[0])
    response = guided.post("/generate", body("Hi", traced) | {"stream": True}, stream=True)
    chunks = [line for line in response.iter_lines() if line.startswith(b"data: {")]
    last = json.loads(chunks[-1].removeprefix(b"data: "))
    assert last["output_ids"] == several[0]["output_ids"]
    assert last["meta_info"]["proxy_trace"]["alpha"] == pytest.approx(alphas)
    for prompt in ("It was onal ", "Additional onal questions: "):
        answer = guided.generate(**body(prompt, traced))
        assert "onal " not in written(reference, answer)
        assert answer["meta_info"]["proxy_trace"]["alpha"] == pytest.approx([ALPHA] * TOKENS)


def test_a_marker_is_found_by_requests_that_decode_beside_chunks_of_prompts(guided, reference):
    """Log probabilities would keep a step from reading both. Kills: a token of another request of such a step."""

    def ask(text, said):
        return guided.generate(**body(text, said, max_new_tokens=40) | {"return_logprob": False})["output_ids"]

    alone = ask("Hi", MARKERS[0])
    assert alone[:TOKENS] == guided.generate(**body("Hi", MARKERS[0]))["output_ids"]
    guided.flush_cache()
    with ThreadPoolExecutor(24) as pool:
        crowd = [pool.submit(ask, "Hi", MARKERS[0]) for _ in range(8)]
        beside = [pool.submit(ask, f"{index}: {LONG}", MARKERS[index % 4]) for index in range(16)]
        assert all(one.result() == alone for one in crowd)
    assert all(len(one.result()) == 40 for one in beside)


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ({"proxy_law": {"kind": "entropy", "above": 9.0}, "proxy_alpha": ALPHA}, {"proxy_alpha": 0.0}),
        ({"proxy_law": {"kind": "entropy", "above": -0.1}, "proxy_alpha": ALPHA}, {"proxy_alpha": ALPHA}),
        ({"proxy_law": {"kind": "schedule", "points": [[4, ALPHA]]}}, {"proxy_alpha": ALPHA}),
        ({"proxy_law": {"kind": "schedule", "points": [[0, 0.0], [9, 0.0]]}}, {"proxy_alpha": 0.0}),
        ({"proxy_alpha": ALPHA, "proxy_clip": 1000.0}, {"proxy_alpha": ALPHA}),
        ({"proxy_law": [], "proxy_alpha": ALPHA}, {"proxy_alpha": ALPHA}),
        ({"proxy_law": {"kind": "schedule", "after": {"text": "</think>", "alpha": 9}}}, {"proxy_alpha": 0.5}),
        ({"proxy_plausible": 0, "proxy_alpha": ALPHA}, {"proxy_alpha": ALPHA}),
        ({"proxy_plausible": 1, "proxy_alpha": 5.0}, {"proxy_alpha": 0.0}),
    ],
)
def test_laws_at_their_ends_are_the_constants(guided, said, same):
    """Kills: the sides of an entropy's bound changed, a schedule of one point that is none or ends with it, a clip that
    weighs, a marker that was always there, a share of 0 that cuts, one of 1 that leaves more than the base's best.
    """
    one, other = (guided.generate(**body(LONG, params)) for params in (said, same))
    assert one["output_ids"] == other["output_ids"]


def test_an_answer_says_its_law(guided):
    meta = guided.generate(**body("Hi", {"proxy_law": [ENTROPY, DIVERGENCE], "proxy_clip": 3}))["meta_info"]
    assert meta["proxy_law"] == [DIVERGENCE | {"high": 1.0}, ENTROPY]
    assert (meta["proxy_alpha"], meta["proxy_clip"]) == (0.5, 3)
    response = guided.post("/generate", body("Hi", {"proxy_law": SCHEDULE}))
    told = json.loads(response.headers["proxy-guidance"])
    assert told == {"proxy_alpha": None, "proxy_amateur_alpha": None, "proxy_law": [SCHEDULE]}
    law = {"kind": "schedule", "after": {"text": "</Gedächtnis>", "alpha": 0.25}}
    response = guided.post("/generate", body("Hi", {"proxy_law": law, "proxy_alpha": 0.75}))
    told = {"proxy_alpha": 0.75, "proxy_amateur_alpha": 0.75, "proxy_law": [law]}
    assert json.loads(response.headers["proxy-guidance"]) == told
    assert {name: response.json()["meta_info"][name] for name in told} == told
    assert "proxy_law" not in guided.generate(**body("Hi", {}))["meta_info"]


def test_a_trace_says_the_strength_of_each_token(guided, reference):
    for said, wanted_alphas in (
        ({"proxy_law": SCHEDULE}, [0.0, 0.666667, 1.333333, 2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.0, -1.0]),
        ({"proxy_law": {"kind": "entropy", "above": 99}, "proxy_alpha": ALPHA}, [0.0] * 12),
    ):
        answer = guided.generate(**body("Hi", said | {"proxy_trace": True}, max_new_tokens=12))
        trace = answer["meta_info"]["proxy_trace"]
        assert trace["alpha"] == pytest.approx(wanted_alphas, abs=1e-5)
        rows = reference.fused_logits("Hi", continuation=answer["output_ids"][:-1], alpha=ALPHA, law=said["proxy_law"])
        told = rows[:, : len(reference.tokenizer)].log_softmax(-1)[range(12), answer["output_ids"]]
        assert trace["fused_logprob"] == pytest.approx(told.tolist(), abs=logprob_tolerance(2.0))


def test_it_goes_with_a_grammar_and_by_chat(guided):
    said = {"proxy_law": DIVERGENCE, "proxy_alpha": ALPHA}
    assert len(guided.generate(**body("Say", said, regex="[0-9]{6}", ignore_eos=False))["text"]) == 6
    messages = [{"role": "user", "content": "Hi"}]
    answer = guided.chat(messages, extra_body={"custom_params": said})
    assert answer["choices"][0]["meta_info"]["proxy_law"] == [DIVERGENCE | {"high": 1.0}]


def test_a_program_says_one(guided):
    @sgl.function
    def tell(s, law):
        s += "Tell " + proxy_gen("answer", law=law, max_tokens=TOKENS, temperature=0, ignore_eos=True)

    direct = guided.generate(**body("Tell ", {"proxy_law": SCHEDULE}))
    # A backend's own strength is for calls that say none.
    state = tell.run(SCHEDULE, backend=ProxyBackend(guided.url, default_alpha=0.2))
    assert state["answer"] == direct["text"] and state.get_meta_info("answer")["proxy_law"] == [SCHEDULE]
    with pytest.raises(RequestError, match="choices are scored, not generated, so a law that counts"):
        proxy_gen("answer", law=SCHEDULE, choices=["a", "b"])


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"proxy_law": {"kind": "magic"}}, "proxy_law"),
        ({"proxy_law": {"kind": "entropy"}}, "above is missing"),
        ({"proxy_law": {"kind": "entropy", "above": "high"}}, "above"),
        ({"proxy_law": {"kind": "entropy", "above": 1, "below": 2}}, "below is not known here"),
        ({"proxy_law": {"kind": "schedule", "points": []}}, "points"),
        ({"proxy_law": {"kind": "schedule", "points": [[3, 1.0], [3, 2.0]]}}, "not in order"),
        ({"proxy_law": {"kind": "schedule", "points": [[0, 99]]}}, "points"),
        ({"proxy_law": {"kind": "divergence", "low": 2, "high": 1}}, "low is 2 and high 1"),
        ({"proxy_law": [ENTROPY, ENTROPY]}, "2 laws of kind entropy"),
        ({"proxy_law": [SCHEDULE, DIVERGENCE]}, "both say the strength"),
        ({"proxy_law": SCHEDULE, "proxy_alpha": 0.5}, "leave proxy_alpha out"),
        ({"proxy_law": {"kind": "schedule", "after": {"text": "", "alpha": 1}}}, "send a text of 1 to 64"),
        ({"proxy_law": {"kind": "schedule", "after": "</think>"}}, "send an object"),
        ({"proxy_law": {"kind": "schedule"}}, "neither points nor after"),
        ({**MARKERS[0], "proxy_amateur_alpha": 0.0}, "one strength for both"),
        ({"proxy_law": DIVERGENCE, "proxy_amateur_alpha": 0.0}, "one strength for both"),
        ({"proxy_clip": 1.0, "proxy_amateur_alpha": 0.0}, "weights them apart"),
        ({"proxy_clip": 0}, "proxy_clip is 0: send a number of logits above 0"),
        ({"proxy_law": "fast"}, "proxy_law"),
        ({"proxy_plausible": 1.1}, "proxy_plausible is 1.1: send a share of the probability"),
    ],
)
def test_what_is_no_law_is_a_400_of_one_sentence(guided, said, sentence):
    response = guided.post("/generate", body("Hi", said))
    assert response.status_code == 400 and sentence in response.text, response.text
    assert len(response.text) < 1000


def test_a_server_without_proxies_has_no_law(plain):
    response = plain.post("/generate", body("Hi", {"proxy_law": ENTROPY, "proxy_alpha": 1.0}))
    assert response.status_code == 400 and "base model alone" in response.text


def test_scores_are_of_what_the_law_says(guided, reference):
    said = {"proxy_law": {"kind": "schedule", "points": [[0, 1.5]]}}
    asked = body("Say", said) | {"token_ids_logprob": [17, 65]}
    asked["sampling_params"] |= {"max_new_tokens": 0}
    [told] = guided.generate(**asked)["meta_info"]["output_token_ids_logprobs"]
    row = reference.fused_logits("Say", alpha=1.5)[-1, : len(reference.tokenizer)].log_softmax(-1)
    for logprob, token, _ in told:
        assert logprob == pytest.approx(row[token].item(), abs=logprob_tolerance(1.5))


LISTED = json.dumps({"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 2})
SHAPES = [
    {},
    {"json_schema": json.dumps({"enum": ["red", "green", "blue"]}), "ignore_eos": False},
    {"json_schema": LISTED, "max_new_tokens": 40, "ignore_eos": False},
    {"regex": "[a-f]{3}[0-9]{2,4}", "ignore_eos": False},
    {"logit_bias": {"70": 6.0, "80": 5.0}},
    {"min_new_tokens": 12, "ignore_eos": False},
    {"top_k": 7, "top_p": 0.9},
]


@pytest.mark.parametrize("text", ["Say", LONG])
def test_where_only_the_bases_best_is_plausible_the_answer_is_the_bases(guided, text):
    """Drawn and strongly steered, with all that may rule out the base's best: what the base says greedily with it.

    Kills: a cut before a grammar, or one whose best is not allowed, which leaves nothing to draw.
    """
    best = {"proxy_alpha": 5.0, "proxy_plausible": 1.0}
    # Ids that the base would say, banned: the next best of it are.
    said = guided.generate(**body(text, {"proxy_alpha": 0.0}))["output_ids"]
    shapes = [*SHAPES, {"logit_bias": {str(token): -100.0 for token in said[:4]}}]
    asked = [body(text, best, **shape, temperature=1.0) for shape in shapes]
    asked += [body(text, {"proxy_alpha": 0.0}, **shape) for shape in shapes]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda one: guided.generate(**one), asked))
    for shape, drawn, greedy in zip(shapes, answers, answers[len(shapes) :], strict=False):
        assert drawn["output_ids"] == greedy["output_ids"], shape
        logprobs = [logprob for logprob, _, _ in drawn["meta_info"]["output_token_logprobs"]]
        assert logprobs == pytest.approx([0.0] * len(logprobs), abs=1e-5), "of what can be drawn, it is all"
    of_schema = answers[1]
    assert json.loads(of_schema["text"]) in ("red", "green", "blue")
    assert of_schema["meta_info"]["finish_reason"]["type"] == "stop"
    assert len({tuple(answer["output_ids"]) for answer in answers[: len(shapes)]}) > 4, "the shapes shape"


def test_what_is_drawn_is_plausible_in_samples_and_streams(guided, reference):
    """Kills: a cut of the first sample, of the first token or of the last chunk alone."""
    said = {"proxy_alpha": 1.0, "proxy_plausible": 0.3, "proxy_trace": True}
    drawn = guided.generate(**body("Tell", said, n=4, temperature=3.0))
    chunks = guided.post("/generate", body("Tell", said, temperature=3.0) | {"stream": True}, stream=True).iter_lines()
    [*_, last] = [line for line in chunks if line.startswith(b"data: {")]
    drawn.append(json.loads(last.removeprefix(b"data: ")))
    assert len({tuple(answer["output_ids"]) for answer in drawn}) > 1
    for answer in drawn:
        rows, _, _ = reference.logits("Tell", continuation=answer["output_ids"][:-1])
        chances = rows[:, : len(reference.tokenizer)].softmax(-1)
        shares = chances[range(TOKENS), answer["output_ids"]] / chances.amax(-1)
        assert shares.min() > 0.299
        # Evidence is of the models, before anything is cut.
        fused = reference.fused_logits("Tell", continuation=answer["output_ids"][:-1], alpha=1.0)
        told = fused[:, : len(reference.tokenizer)].log_softmax(-1)[range(TOKENS), answer["output_ids"]]
        trace = answer["meta_info"]["proxy_trace"]
        assert trace["fused_logprob"] == pytest.approx(told.tolist(), abs=logprob_tolerance(1.0))


def test_penalties_choose_among_the_plausible(guided):
    """They count what was written, and the base's own numbers don't: at 1 there is nothing to choose."""
    penalized = {"frequency_penalty": 2.0, "repetition_penalty": 2.0}
    best = {"proxy_plausible": 1.0}
    one, other = guided.generate(**body(LONG, best, **penalized)), guided.generate(**body(LONG, best))
    assert one["output_ids"] == other["output_ids"]


def test_logprobs_are_of_what_can_be_drawn(guided, reference):
    """Also of a request that is only scored; what can't be drawn has SGLang's least number, after a chain null."""
    said = {"proxy_alpha": 1.5, "proxy_plausible": 0.2}
    row = reference.fused_logits("Say", alpha=1.5, plausible=0.2)[-1, : len(reference.tokenizer)].log_softmax(-1)
    plausible = row.isfinite().nonzero()[:, 0].tolist()
    ids = [plausible[0], plausible[-1], row.argmin().item()]
    for more in ({"max_new_tokens": 0}, {"max_new_tokens": 1}):
        asked = body("Say", said, **more) | {"token_ids_logprob": ids}
        [told] = guided.generate(**asked)["meta_info"]["output_token_ids_logprobs"]
        assert [token for _, token, _ in told] == ids and (told[2][0] is None or told[2][0] < -1e38)
        assert [one[0] for one in told[:2]] == pytest.approx(row[ids[:2]].tolist(), abs=logprob_tolerance(1.5))


def test_an_answer_says_its_cut(guided):
    said = {"proxy_alpha": 0.0, "proxy_plausible": 0.25}
    response = guided.post("/generate", body("Hi", said))
    assert response.json()["meta_info"]["proxy_plausible"] == 0.25
    assert json.loads(response.headers["proxy-guidance"]) == said | {"proxy_amateur_alpha": 0.0}
    assert "proxy_plausible" not in guided.generate(**body("Hi", {"proxy_plausible": 0}))["meta_info"]
    answer = guided.chat([{"role": "user", "content": "Hi"}], logprobs=True, top_logprobs=3,
                         extra_body={"custom_params": {"proxy_plausible": 1}})  # fmt: skip
    assert answer["choices"][0]["meta_info"]["proxy_plausible"] == 1


def test_a_program_says_a_cut(guided):
    @sgl.function
    def tell(s):
        s += "Tell " + proxy_gen("answer", alpha=5.0, plausible=1, max_tokens=TOKENS, temperature=1, ignore_eos=True)

    state = tell.run(backend=ProxyBackend(guided.url))
    assert state["answer"] == guided.generate(**body("Tell ", {"proxy_alpha": 0.0}))["text"]
