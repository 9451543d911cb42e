"""Served tokens equal those of a plain three-model loop in transformers."""

import pytest

from cases import Case, ask_all, assert_agrees, assert_same_tokens, mixed_cases, oracle_answer
from servers import chat_messages
from sgl_proxythinker.programs.pictures import data_url, random_picture

pytestmark = pytest.mark.xdist_group("guided")


@pytest.fixture(scope="module")
def expected(reference):
    return [oracle_answer(reference, case) for case in mixed_cases()]


def test_alpha_changes_the_tokens(expected):
    """Else every comparison below would pass on the base alone."""
    texts = {}
    for case, answer in zip(mixed_cases(), expected, strict=True):
        texts.setdefault((case.text, len(case.images)), []).append(tuple(answer.token_ids))
    changed = [len(set(answers)) == len(answers) for answers in texts.values()]
    assert all(changed), f"prompts whose answers don't depend on alpha: {changed}"


def test_a_cold_and_a_warm_cache_give_the_oracles_tokens(guided, expected, reference):
    guided.flush_cache()
    cases = mixed_cases()
    for answer, oracle, case in zip(ask_all(guided, cases), expected, cases, strict=True):
        assert_agrees(answer, oracle, case, reference)
    for answer, oracle, case in zip(ask_all(guided, cases), expected, cases, strict=True):
        assert_agrees(answer, oracle, case, reference)
        cached = answer["choices"][0]["meta_info"]["cached_tokens"]
        assert cached == len(oracle.input_ids) - 1, "the second time only the last prompt token is computed"


def test_one_request_alone_gives_the_same_tokens_as_in_a_crowd(guided, expected, reference):
    for index in (0, 6, 17):
        case = mixed_cases()[index]
        [answer] = ask_all(guided, [case])
        assert_agrees(answer, expected[index], case, reference)


def test_the_same_image_in_three_models_of_equal_width(guided, reference):
    """An image cache shared between the models would be a silent corruption here, not a crash."""
    guided.flush_cache()
    image = random_picture(41)
    for alpha in (1.5, 1.5, 0.0, -1.0):
        case = Case("What do you see?", (image, image), alpha)
        [answer] = ask_all(guided, [case])
        assert_agrees(answer, oracle_answer(reference, case), case, reference)


def test_the_ablation_without_the_amateur(guided, reference):
    case = Case("What is in the picture?", (random_picture(5),), 0.5, amateur_alpha=0.0)
    answer = guided.chat(
        case.messages(), None, logprobs=True,
        extra_body={"custom_params": {"proxy_alpha": 0.5, "proxy_amateur_alpha": 0.0}},
    )  # fmt: skip
    assert_agrees(answer, oracle_answer(reference, case), case, reference)
    assert answer["choices"][0]["meta_info"]["proxy_amateur_alpha"] == 0.0
    with_amateur = oracle_answer(reference, case, amateur_alpha=0.5)
    assert with_amateur.text != answer["choices"][0]["message"]["content"], "the amateur's weight must matter"


def test_a_conversation_over_images_in_several_turns(guided, reference):
    """The second turn extends the first: its prefix is cached in all three models."""
    first, second = random_picture(11), random_picture(12, 112, 56)
    messages = chat_messages("What is here?", [first])
    answer = guided.chat(messages, 1.0)
    turns = [
        *messages,
        {"role": "assistant", "content": answer["choices"][0]["message"]["content"]},
        *chat_messages("And here?", [second]),
    ]
    oracle = reference.generate(turns, [first, second], alpha=1.0, max_new_tokens=16)
    follow_up = guided.chat(turns, 1.0, logprobs=True)
    assert_agrees(follow_up, oracle, Case("And here?", (first, second), 1.0), reference)
    prompt_tokens = answer["usage"]["prompt_tokens"]
    assert follow_up["choices"][0]["meta_info"]["cached_tokens"] >= prompt_tokens


def test_generate_with_several_images_reads_what_the_oracle_reads(guided, reference):
    """/generate takes nested lists of images; the flat list is one image a prompt."""
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    images = [random_picture(21), random_picture(22, 112, 84)]
    text = f"{place}{place}Compare."
    answer = guided.generate(
        text=[text], image_data=[[data_url(image) for image in images]],
        sampling_params={"temperature": 0, "max_new_tokens": 12, "custom_params": {"proxy_alpha": 1.5}},
    )  # fmt: skip
    oracle = reference.generate(text, images, alpha=1.5, max_new_tokens=12)
    assert_same_tokens(answer[0]["output_ids"], oracle, reference, 1.5, images=images)
