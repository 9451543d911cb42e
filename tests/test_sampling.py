"""Sampling draws from softmax of the fused logits, and all that shapes a distribution is applied to it once."""

import json
import shutil
from collections import Counter

import pytest
import torch

from cases import assert_same_tokens, close_call, logprob_tolerance, output_ids
from chi_square import SIGNIFICANCE, p_value, softmax
from servers import COMMON, ON_GPU, chat_messages, command, serving
from sgl_proxythinker.programs.pictures import random_picture

pytestmark = pytest.mark.xdist_group("guided")

PROMPT = "Say"
ALPHA = 0.7
DRAWS = 3000
NEAR = logprob_tolerance(ALPHA)


@pytest.fixture(scope="module")
def rows(reference):
    """Fused, base and swapped-sign logits of the token after PROMPT, over the ids that the tokenizer knows."""
    known = len(reference.tokenizer)
    return {alpha: reference.fused_logits(PROMPT, alpha=alpha)[0, :known] for alpha in (ALPHA, 0.0, -ALPHA)}


def draw(server, **sampling_params) -> Counter:
    """First tokens of DRAWS independent answers."""
    params = {"max_new_tokens": 1, "temperature": 1.0, "custom_params": {"proxy_alpha": ALPHA}, **sampling_params}
    drawn = Counter()
    for _ in range(DRAWS // 250):
        answers = server.generate(text=[PROMPT] * 250, sampling_params=params)
        drawn.update(answer["output_ids"][0] for answer in answers)
    return drawn


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep tokens until their mass before this one exceeds top_p; renormalise (SGLang's definition)."""
    ordered, order = probabilities.sort(descending=True)
    kept = ordered * ((ordered.cumsum(0) - ordered) <= top_p)
    return torch.zeros_like(probabilities).scatter(0, order, kept / kept.sum())


def only(probabilities: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    mask = torch.zeros_like(probabilities)
    mask[tokens] = 1
    return probabilities * mask / (probabilities * mask).sum()


def test_temperature_one(guided, rows):
    drawn = draw(guided)
    assert p_value(drawn, softmax(rows[ALPHA])) > SIGNIFICANCE
    for wrong in (0.0, -ALPHA):
        assert p_value(drawn, softmax(rows[wrong])) < 1e-50, "the test could not tell the fused distribution apart"


def test_temperature_applies_to_the_fused_row_once(guided, rows):
    drawn = draw(guided, temperature=1.7)
    assert p_value(drawn, softmax(rows[ALPHA], 1.7)) > SIGNIFICANCE
    assert p_value(drawn, softmax(rows[ALPHA], 1.7**2)) < 1e-10


def test_top_p(guided, rows):
    assert p_value(draw(guided, top_p=0.6), nucleus(softmax(rows[ALPHA]), 0.6)) > SIGNIFICANCE


def test_top_k(guided, rows):
    probabilities = softmax(rows[ALPHA])
    drawn = draw(guided, top_k=5)
    assert p_value(drawn, only(probabilities, probabilities.topk(5).indices.tolist())) > SIGNIFICANCE


def test_a_grammar_masks_the_fused_row(guided, rows, reference):
    letters = [reference.tokenizer.convert_tokens_to_ids(letter) for letter in "abcdef"]
    drawn = draw(guided, regex="[a-f]")
    assert p_value(drawn, only(softmax(rows[ALPHA]), letters)) > SIGNIFICANCE


def check_greedy(reference, answer_ids, adjust, alpha=ALPHA, images=()):
    """Each token is the argmax of its fused row after `adjust(row, tokens before it)`."""
    prompt = chat_messages(PROMPT, list(images)) if images else PROMPT
    fused = reference.fused_logits(prompt, list(images), answer_ids, alpha=alpha)
    unadjusted = fused[: len(answer_ids)].argmax(-1).tolist()
    for step, token in enumerate(answer_ids):
        row = adjust(fused[step].clone(), answer_ids[:step])
        assert row[token] >= row.max() - close_call(alpha), f"step {step}"
    return unadjusted


def greedy(server, **sampling_params):
    params = {"max_new_tokens": 20, "temperature": 0, "custom_params": {"proxy_alpha": ALPHA}, **sampling_params}
    return server.generate(text=PROMPT, sampling_params=params)


def test_penalties_apply_once_to_the_fused_row(guided, reference):
    """Applied per model, they would scale with alpha; applied twice, they would be twice as strong."""

    def penalise(row, before):
        counts = torch.bincount(torch.tensor(before, dtype=torch.long), minlength=len(row)).float()
        return row - 0.9 * counts - 0.6 * (counts > 0)

    answer = greedy(guided, frequency_penalty=0.9, presence_penalty=0.6)
    unadjusted = check_greedy(reference, answer["output_ids"], penalise)
    assert unadjusted != answer["output_ids"], "the penalty must have changed something"


def test_repetition_penalty_scales_the_fused_row_once(guided, reference):
    def penalise(row, before):
        for token in set(before):
            row[token] = row[token] / 1.8 if row[token] > 0 else row[token] * 1.8
        return row

    answer = greedy(guided, repetition_penalty=1.8)
    unadjusted = check_greedy(reference, answer["output_ids"], penalise)
    assert unadjusted != answer["output_ids"], "the penalty must have changed something"


def test_logit_bias_is_added_once(guided, reference):
    fused = reference.fused_logits(PROMPT, alpha=ALPHA)[0]
    best, second = fused.topk(2).indices.tolist()
    gap = float(fused[best] - fused[second])
    assert greedy(guided, max_new_tokens=1, logit_bias={str(second): gap * 0.9})["output_ids"] == [best]
    assert greedy(guided, max_new_tokens=1, logit_bias={str(second): gap * 1.1})["output_ids"] == [second]


def test_min_new_tokens_holds_the_end_back(guided, reference):
    end = reference.tokenizer.convert_tokens_to_ids("<|im_end|>")
    eager = {str(end): 100.0}
    assert greedy(guided, logit_bias=eager)["meta_info"]["completion_tokens"] == 1
    held = greedy(guided, logit_bias=eager, min_new_tokens=5)
    assert held["meta_info"]["completion_tokens"] == 6 and held["meta_info"]["finish_reason"]["type"] == "stop"
    plain = greedy(guided, max_new_tokens=5)
    assert held["output_ids"][:5] == plain["output_ids"], "until then the tokens are those of the fused rows"


def test_min_new_tokens_holds_back_every_end_of_the_model(triple, reference, tmp_path):
    """Kills: a minimum that the second end of `generation_config.json` cuts short, as Qwen2.5-VL's has one."""
    base = shutil.copytree(triple.base, tmp_path / "base")
    ends = reference.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    config = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": ends}))
    arguments = command(base, (triple.expert, triple.amateur), *COMMON)
    with serving(arguments, tmp_path / "log") as server:
        for end in ends:
            eager = {str(end): 100.0}
            assert greedy(server, logit_bias=eager)["meta_info"]["completion_tokens"] == 1
            held = greedy(server, logit_bias=eager, min_new_tokens=5)
            assert held["meta_info"]["completion_tokens"] == 6
            assert held["meta_info"]["finish_reason"] == {"type": "stop", "matched": end}


def test_ids_past_the_tokenizer_cannot_be_asked_for(guided, reference):
    padding = len(reference.tokenizer) + 3
    response = guided.post("/generate", {"text": "Hi", "sampling_params": {"logit_bias": {str(padding): 100.0}}})
    assert response.status_code == 400 and f"logit_bias[{padding}]" in response.text


def test_stop_strings_and_stop_tokens(guided):
    free = greedy(guided)
    word = free["text"][3:6]
    stopped = greedy(guided, stop=word)
    assert stopped["text"] == free["text"][: free["text"].index(word)]
    assert stopped["meta_info"]["finish_reason"] == {"type": "stop", "matched": word}
    token = free["output_ids"][4]
    stopped = greedy(guided, stop_token_ids=[token])
    assert stopped["output_ids"] == free["output_ids"][: free["output_ids"].index(token) + 1]


def test_json_schema_regex_and_ebnf_are_obeyed_and_guided(guided, reference):
    schema = {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 2, "maxItems": 2}
    no_white_space = {str(token): -100.0 for token in _white_space(reference.tokenizer)}
    answers = {}
    for alpha in (0.0, 3.0):
        params = {"custom_params": {"proxy_alpha": alpha}, "max_new_tokens": 60}
        made = json.loads(greedy(guided, json_schema=json.dumps(schema), logit_bias=no_white_space, **params)["text"])
        assert len(made) == 2 and set(made) <= {1, 2, 3}
        digits = greedy(guided, regex="[0-9]{12}", **params)["text"]
        assert len(digits) == 12 and digits.isdigit()
        answers[alpha] = digits
        assert greedy(guided, ebnf='root ::= "yes" | "no"', **params)["text"] in ("yes", "no")
    assert answers[0.0] != answers[3.0], "guidance must act within the grammar"


def _white_space(tokenizer) -> list[int]:
    """JSON allows any amount of it, and a random model never has enough."""
    return [token for token in range(len(tokenizer)) if not tokenizer.decode([token]).strip()]


def test_n_samples_share_the_prompt_of_several_images(guided, reference):
    """n > 1 with two images in one chat; the prompt is computed once for all samples, in all three models."""
    images = [random_picture(31), random_picture(32)]
    messages = chat_messages("What are these?", images)
    answer = guided.chat(messages, ALPHA, n=3, temperature=0, logprobs=True)
    oracle = reference.generate(messages, images, alpha=ALPHA, max_new_tokens=16)
    for choice in answer["choices"]:
        assert_same_tokens(output_ids(choice), oracle, reference, ALPHA, images=images)
        assert choice["meta_info"]["cached_tokens"] == len(oracle.input_ids) - 1
    assert len({choice["message"]["content"] for choice in answer["choices"]}) == 1


def test_logprobs_are_of_the_fused_distribution(guided, reference):
    answer = guided.generate(
        text=PROMPT, return_logprob=True, top_logprobs_num=3, token_ids_logprob=[7, 8],
        sampling_params={"temperature": 0, "max_new_tokens": 4, "custom_params": {"proxy_alpha": ALPHA}},
    )  # fmt: skip
    meta = answer["meta_info"]
    fused = reference.fused_logits(PROMPT, continuation=answer["output_ids"][:-1], alpha=ALPHA).log_softmax(-1)
    for step, token in enumerate(answer["output_ids"]):
        assert meta["output_token_logprobs"][step][0] == pytest.approx(float(fused[step, token]), abs=NEAR)
        top = fused[step].topk(3)
        ids = [entry[1] for entry in meta["output_top_logprobs"][step]]
        assert ON_GPU or ids == top.indices.tolist()
        assert len(set(ids)) == 3 and fused[step, ids].tolist() == pytest.approx(top.values.tolist(), abs=NEAR)
        for (logprob, token_id, _), wanted in zip(meta["output_token_ids_logprobs"][step], (7, 8), strict=True):
            assert token_id == wanted and logprob == pytest.approx(float(fused[step, wanted]), abs=NEAR)


def test_scoring_the_next_token_without_generating_is_guided(guided, reference):
    """max_new_tokens 0 takes the path that doesn't sample."""
    answer = guided.generate(
        text=PROMPT, return_logprob=True, token_ids_logprob=[5, 6],
        sampling_params={"max_new_tokens": 0, "temperature": 0, "custom_params": {"proxy_alpha": ALPHA}},
    )  # fmt: skip
    fused = reference.fused_logits(PROMPT, alpha=ALPHA)[0].log_softmax(-1)
    scored = {token: logprob for logprob, token, _ in answer["meta_info"]["output_token_ids_logprobs"][0]}
    assert scored == {token: pytest.approx(float(fused[token]), abs=NEAR) for token in (5, 6)}
