"""The seven programs on a real server: what they ask for, at which strength, and what they make of it.

The models are random, so that words mean nothing: what is asserted is that each call was made as a person would have
made it by chat, that constrained output has its form, and that results follow from generations.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from servers import chat_messages
from sgl_proxythinker import ProxyBackend
from sgl_proxythinker.answers import ask
from sgl_proxythinker.programs.alpha_ladder import alpha_ladder
from sgl_proxythinker.programs.compare import compare
from sgl_proxythinker.programs.describe_then_reason import DESCRIBE, describe_then_reason
from sgl_proxythinker.programs.generation import Generation, ProgramFailed
from sgl_proxythinker.programs.ladder_chart import COLOURS, draw_chart
from sgl_proxythinker.programs.look_closer import AGAIN, WHERE, look_closer
from sgl_proxythinker.programs.majority_vote import majority_vote
from sgl_proxythinker.programs.pictures import data_url, random_picture
from sgl_proxythinker.programs.region import enlarge, shown_box
from sgl_proxythinker.programs.terminal import figures
from sgl_proxythinker.programs.think_then_answer import _unanchored, think_then_answer
from sgl_proxythinker.programs.verify_and_revise import CRITIQUE, LOOK_AGAIN, REVISE, verify_and_revise

# The interpreter warns, with a traceback, of what it keeps as the program's error.
pytestmark = [pytest.mark.xdist_group("guided"), pytest.mark.filterwarnings("ignore:Error in stream_executor")]

QUESTION, INSTRUCTION = "How many red ones?", "Think first."
TOO_LONG = "word " * 5000


@pytest.fixture(scope="module")
def backend(guided):
    return ProxyBackend(guided.url)


def said(text):
    return {"role": "assistant", "content": text}


def assert_is_chat(guided, made, messages, **options):
    """A generation is what /v1/chat/completions answers to these messages at its strength: same prompt, same text."""
    answer = guided.chat(messages, made.alpha, max_tokens=made.completion_tokens, **options)
    assert made.text == answer["choices"][0]["message"]["content"]
    assert made.prompt_tokens == answer["usage"]["prompt_tokens"]


# think_then_answer


@pytest.mark.parametrize("regex", ["[0-9]{3}", "^[0-9]{3}$"])
def test_a_thought_is_guided_and_its_answer_is_the_bases_in_the_form_asked_for(guided, backend, regex):
    one = random_picture(101)
    done = think_then_answer(backend, [one], QUESTION, alpha=2.0, regex=regex, instruction=INSTRUCTION, max_tokens=10)
    assert (done.thought.alpha, done.answer.alpha) == (2.0, 0.0)
    assert re.fullmatch("[0-9]{3}", done.value)
    assert_is_chat(guided, done.thought, chat_messages(ask(QUESTION, INSTRUCTION), [one]))
    # The answer reads on from the thought, in the same turn.
    tokens = guided.post("/tokenize", {"messages": chat_messages(ask(QUESTION, INSTRUCTION), [one])}).json()["tokens"]
    start = guided.post("/detokenize", {"tokens": tokens, "skip_special_tokens": False}).json()["text"]
    wanted = guided.generate(
        text=f"{start}{done.thought.text}</think><answer>",
        image_data=[data_url(one)],
        sampling_params={
            "temperature": 0, "max_new_tokens": 24, "regex": "([0-9]{3})</answer>", "custom_params": {"proxy_alpha": 0}
        },
    )  # fmt: skip
    assert done.answer.text == wanted["text"] == f"{done.value}</answer>"
    assert done.answer.prompt_tokens == wanted["meta_info"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("regex", "form"),
    [("^a$", "a"), (r"a\$", r"a\$"), (r"a\\$", r"a\\"), ("^a|b$", "a|b"), ("[$^]", "[$^]"), ("a", "a")],
)
def test_anchors_around_a_form_are_taken_off_and_no_dollar_that_is_a_character(regex, form):
    assert _unanchored(regex) == form


def test_a_strength_that_the_servers_law_says_is_told_as_such():
    """Kills: an answer that is lost for want of one number, on a server whose law is a schedule."""
    counts = dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens", "seconds"), 1)
    assert figures(Generation(text="", alpha=None, cut_off=False, **counts)).startswith("strength by a law, 1 tokens")


def test_an_answer_may_have_a_schema(backend):
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"enum": [1, 2]}}}
    schema |= {"required": ["colour", "count"], "additionalProperties": False}
    done = think_then_answer(backend, [random_picture(102)], QUESTION, json_schema=schema, max_tokens=4)
    assert done.value == json.loads(done.answer.text)
    assert done.value["colour"] in ("red", "blue") and done.value["count"] in (1, 2)


def test_an_answer_that_did_not_get_its_form_is_an_error(backend):
    with pytest.raises(ProgramFailed, match="cut off at 256 tokens"):
        think_then_answer(backend, [], QUESTION, regex="[0-9]{300}", max_tokens=4)
    with pytest.raises(ValueError, match="one form"):
        think_then_answer(backend, [], QUESTION, regex="a", json_schema={})


# verify_and_revise


@pytest.mark.parametrize("rounds", [1, 2])
def test_revising_goes_on_until_the_critique_agrees(backend, rounds):
    ended = set()
    for number in range(8):
        done = verify_and_revise(backend, [], f"{number}?", alpha=3.0, rounds=rounds, max_tokens=4)
        verdicts = [one.verdict for one in done.rounds]
        assert 1 <= len(verdicts) <= rounds
        assert verdicts[:-1] == ["wrong"] * (len(verdicts) - 1)
        assert done.agreed == (verdicts[-1] == "correct") and (done.agreed or len(verdicts) == rounds)
        assert [one.revision is None for one in done.rounds] == [verdict == "correct" for verdict in verdicts]
        critiques, revisions = zip(*((one.critique, one.revision) for one in done.rounds), strict=True)
        assert {one.alpha for one in (done.first, *critiques, *filter(None, revisions))} == {3.0}
        ended.add(done.agreed)
    assert ended == {True, False}, "choose other questions: a critique must agree with some answers and not with others"


def test_the_critique_sees_the_pictures_again(guided, backend):
    options = {"alpha": 1.0, "rounds": 1, "instruction": INSTRUCTION, "max_tokens": 8}
    for seed in range(103, 111):  # one whose answer is revised
        one = random_picture(seed)
        done = verify_and_revise(backend, [one], QUESTION, **options)
        if done.rounds[0].verdict == "wrong":
            break
    first = chat_messages(ask(QUESTION, INSTRUCTION), [one])
    assert_is_chat(guided, done.first, first)
    again = [*first, said(done.first.text), *chat_messages(f"{LOOK_AGAIN} {CRITIQUE}", [one])]
    (only,) = done.rounds
    assert_is_chat(guided, only.critique, again)
    assert only.verdict == "wrong", "choose other pictures: this test needs a revision"
    verdict = said(f"{only.critique.text}\n\nThe final answer is wrong")
    assert_is_chat(guided, only.revision, [*again, verdict, *chat_messages(ask(REVISE, INSTRUCTION))])


# majority_vote


def test_the_vote_is_the_vote_and_its_prefix_is_computed_once(backend):
    """A new picture: what a ballot finds cached was computed for this vote. All but a prompt's last token can be."""
    done = majority_vote(
        backend, [random_picture(105, 112, 84)], QUESTION, alphas=(0.5, 3.0), samples=4, temperature=1.0, regex="[1-3]",
        max_tokens=4,
    )  # fmt: skip
    made = [ballot.generation for ballot in done.ballots]
    assert [one.alpha for one in made] == [0.5] * 4 + [3.0] * 4
    assert len({one.prompt_tokens for one in made}) == 1
    assert [one.cached_tokens for one in made] == [one.prompt_tokens - 1 for one in made]
    votes = Counter(one.text for one in made)
    assert [ballot.answer for ballot in done.ballots] == [one.text for one in made]
    assert {one.answer: one.votes for one in done.counts} == votes
    assert votes[done.answer] == max(votes.values()) == done.agreement * 8
    assert done.tied == (list(votes.values()).count(max(votes.values())) > 1)


def test_a_vote_without_claims_has_no_winner(backend):
    done = majority_vote(backend, [], QUESTION, alphas=(0.5,), samples=2, max_tokens=3)
    assert all(ballot.generation.cut_off and not ballot.answer for ballot in done.ballots)
    assert (done.answer, done.agreement, done.tied, done.counts) == ("", 0.0, False, [])


def test_a_vote_fails_with_any_of_its_ballots(backend):
    """The prefix can be computed, and no answer can: no grammar knows back references."""
    with pytest.raises(ProgramFailed, match="(?i)regex|grammar"):
        majority_vote(backend, [], QUESTION, samples=2, regex=r"(a|b)\1", max_tokens=4)


def test_one_ballot_is_no_vote(backend):
    with pytest.raises(ValueError, match="two ballots at least"):
        majority_vote(backend, [], QUESTION, alphas=(0.5,), samples=1)


# look_closer


@pytest.mark.parametrize("count", [1, 2])
def test_the_crop_of_the_named_region_is_the_picture_of_a_new_turn(guided, backend, count):
    pictures, kept = [random_picture(106, 120, 90), random_picture(107, 90, 120)][:count], []
    done = look_closer(
        backend, pictures, QUESTION, alpha=2.0, instruction=INSTRUCTION, max_tokens=8, keep_crop=kept.append
    )
    assert (done.naming.alpha, done.generation.alpha) == (0.0, 2.0)
    assert json.loads(done.naming.text) == json.loads(done.named.model_dump_json())
    whole = pictures[done.named.picture - 1]
    assert done.shown == shown_box(done.named.bbox_2d, whole.size)
    (crop,) = kept
    assert crop.size == done.crop_size
    assert np.array_equal(np.asarray(crop), np.asarray(enlarge(whole, done.shown)))
    sizes = ["Picture 1 is 120 x 90 pixels.", "Picture 2 is 90 x 120 pixels."][:count]
    first = chat_messages(WHERE.format(sizes="\n".join(sizes), question=QUESTION), pictures)
    again = chat_messages(ask(AGAIN.format(question=QUESTION), INSTRUCTION), [crop])
    assert_is_chat(guided, done.generation, [*first, said(done.naming.text), *again])


def test_there_must_be_something_to_look_at(backend):
    with pytest.raises(ValueError, match="give a picture"):
        look_closer(backend, [], QUESTION)
    with pytest.raises(ValueError, match="give a picture"):
        describe_then_reason(backend, [], [QUESTION])


# describe_then_reason


def test_the_base_describes_and_the_guided_model_reasons_on_it(guided, backend):
    one, questions = random_picture(108), ["How many?", "Which is next?"]
    done = describe_then_reason(backend, [one], questions, alpha=2.0, instruction=INSTRUCTION, max_tokens=8)
    assert done.description.alpha == 0.0
    assert [answer.generation.alpha for answer in done.answers] == [2.0, 2.0]
    messages = chat_messages(DESCRIBE, [one])
    assert_is_chat(guided, done.description, messages)
    before = done.description
    for question, answer in zip(questions, done.answers, strict=True):
        messages += [said(before.text), *chat_messages(ask(question, INSTRUCTION))]
        assert answer.question == question
        assert_is_chat(guided, answer.generation, messages)
        if before is not done.description:
            assert answer.generation.cached_tokens >= before.prompt_tokens, "a turn reads on from the one before"
        before = answer.generation


# alpha_ladder


@pytest.fixture(scope="module")
def ladder(backend):
    return alpha_ladder(backend, [random_picture(109)], QUESTION, alphas=(2, -6, 0, 6, 0), regex="[0-9]", max_tokens=4)


def test_a_ladder_has_a_rung_for_each_strength_and_says_where_the_answer_changes(ladder):
    alphas = [-6, 0, 2, 6]
    assert [rung.alpha for rung in ladder.rungs] == [rung.generation.alpha for rung in ladder.rungs] == alphas
    for rung in ladder.rungs:
        assert rung.answer == rung.generation.text and rung.answer.isdigit()
        assert rung.generation.cached_tokens == rung.generation.prompt_tokens - 1
    between = [pair for pair in itertools.pairwise(ladder.rungs) if pair[0].answer != pair[1].answer]
    assert ladder.changes == [(low.alpha, high.alpha) for low, high in between]
    assert ladder.changes, "choose another picture: this test needs a change"


def test_each_rung_is_the_answer_at_its_strength(guided, backend):
    free = alpha_ladder(backend, [random_picture(109)], QUESTION, alphas=(0, 4), instruction=INSTRUCTION, max_tokens=6)
    for rung in free.rungs:
        assert_is_chat(guided, rung.generation, chat_messages(ask(QUESTION, INSTRUCTION), [random_picture(109)]))
        assert rung.answer == "", "a text that was cut off claims nothing"
    assert free.changes == []


def test_the_chart_has_a_colour_for_each_answer(ladder, tmp_path):
    path = tmp_path / "ladder.png"
    (made, *_) = (rung.generation for rung in ladder.rungs)
    answers = ("7", "8", "7.0", "")
    draw_chart("Is $5 \\frac enough?", [(alpha, answer, made) for alpha, answer in enumerate(answers)], path)
    with Image.open(path) as chart:
        seen = {colour for _, colour in chart.convert("RGB").getcolors(1 << 24)}
    shown = [tuple(bytes.fromhex(colour[1:])) in seen for colour in COLOURS[:-1]]  # the last is black, as text is
    assert shown == [True, True, True, False, False, False], "7 and 7.0 are one answer of three"


def test_a_ladder_of_one_rung_is_refused(backend):
    with pytest.raises(ValueError, match="two rungs at least"):
        alpha_ladder(backend, [], QUESTION, alphas=(1, 1.0))


# compare


def test_columns_are_the_same_question_at_three_strengths(guided, backend):
    one = random_picture(110)
    done = compare(backend, [one], QUESTION, alpha=0.7, expert_alpha=2.0, instruction=INSTRUCTION, max_tokens=8)
    assert [column.generation.alpha for column in done.columns] == [0.0, 0.7, 2.0]
    assert done.reading.completion_tokens == 1
    for column in done.columns:
        made = column.generation
        assert_is_chat(guided, made, chat_messages(ask(QUESTION, INSTRUCTION), [one]))
        assert made.cached_tokens == made.prompt_tokens - 1, "its time would hold that of reading the picture"
        assert column.tokens_per_second == pytest.approx(made.completion_tokens / made.seconds)


# Errors


@pytest.mark.parametrize(
    "program", [think_then_answer, verify_and_revise, majority_vote, look_closer, alpha_ladder, compare]
)
def test_a_program_that_fails_says_why(backend, program):
    with pytest.raises(ProgramFailed, match="longer than"):
        program(backend, [random_picture(111)], TOO_LONG, max_tokens=4)


def test_a_conversation_that_fails_says_why(backend):
    with pytest.raises(ProgramFailed, match="longer than"):
        describe_then_reason(backend, [random_picture(111)], [QUESTION, TOO_LONG], max_tokens=4)
