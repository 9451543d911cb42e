"""The tiny trained family as it is served: that guidance helps, and that programs on it find true answers."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product

import pytest
from transformers import AutoTokenizer

from servers import DEVICE, ON_GPU, chat_messages, command, serving
from sgl_proxythinker import ProxyBackend, tiny_family
from sgl_proxythinker.programs.alpha_ladder import alpha_ladder
from sgl_proxythinker.programs.alpha_ladder import main as ladder_command
from sgl_proxythinker.programs.compare import compare
from sgl_proxythinker.programs.describe_then_reason import describe_then_reason
from sgl_proxythinker.programs.explain import explain
from sgl_proxythinker.programs.look_closer import look_closer
from sgl_proxythinker.programs.majority_vote import majority_vote
from sgl_proxythinker.programs.pictures import data_url
from sgl_proxythinker.programs.think_then_answer import think_then_answer
from sgl_proxythinker.programs.verify_and_revise import verify_and_revise
from sgl_proxythinker.tiny_family.grading import is_right, read_answer
from sgl_proxythinker.tiny_family.problems import KINDS, problem, problems
from sgl_proxythinker.tiny_family.scene import PIXELS
from sgl_proxythinker.tiny_family.settings import ANSWER_TOKENS
from sgl_proxythinker.tiny_family.wordings import TEST

pytestmark = pytest.mark.xdist_group("family")

MARKER = "</think>"
COUNT = 100  # problems
# Measured on the first 1,000 problems: base 67.6 %, guided 99.1 % (the model card). On 100 of them, three standard
# deviations of the difference are 14 points.
LEAST_GAIN = 0.15
LEAST_GUIDED = 0.93
SPECIALTIES = "path", "odd"  # of the second expert


def answers(family, **said) -> list[str]:
    """Greedy answers to the first problems of the held-out set, guided as `custom_params` say."""

    def answer(one):
        messages, extra = chat_messages(one.question, [one.picture()]), {"custom_params": said}
        return family.chat(messages, max_tokens=ANSWER_TOKENS, extra_body=extra)["choices"][0]["message"]["content"]

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(answer, problems(TEST, COUNT)))


def share_right(texts: list[str], kinds: tuple[str, ...] = KINDS) -> float:
    asked = [(text, one.answer) for text, one in zip(texts, problems(TEST, COUNT), strict=True) if one.kind in kinds]
    return sum(is_right(*one) for one in asked) / len(asked)


def test_guidance_makes_the_base_think_and_get_it_right(family):
    base, guided = answers(family, proxy_alpha=0.0), answers(family, proxy_alpha=0.5)
    thinking_base, thinking = (sum(read_answer(text).thinks for text in texts) for texts in (base, guided))
    assert share_right(guided) >= share_right(base) + LEAST_GAIN
    assert share_right(guided) >= LEAST_GUIDED
    assert thinking > COUNT / 2 > COUNT / 5 > thinking_base


def test_a_second_expert_helps_where_it_was_trained_and_both_at_once_help_more(family):
    """Kills: the first expert for the second, one strength for the other's, one of two that is not read."""
    its, others = SPECIALTIES, tuple(kind for kind in KINDS if kind not in SPECIALTIES)
    name = tiny_family.SPECIALIST.name
    base, second = answers(family, proxy_alpha=0.0), answers(family, proxy_expert=name, proxy_alpha=0.5)
    both = answers(family, proxy_experts={"expert": 0.25, name: 0.25})
    assert share_right(second, its) >= share_right(base, its) + LEAST_GAIN
    assert abs(share_right(second, others) - share_right(base, others)) <= LEAST_GAIN / 2
    assert share_right(both) >= share_right(second)
    assert share_right(both, its) >= share_right(second, its) and both != second


def test_without_its_picture_a_question_is_a_guess(family):
    def answer(one):
        choice = family.chat(chat_messages(one.question), 0.5, max_tokens=ANSWER_TOKENS)["choices"][0]
        return is_right(choice["message"]["content"], one.answer)

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(answer, problems(TEST, COUNT))) / COUNT < 0.2


@pytest.fixture(scope="module")
def backend(family):
    return ProxyBackend(family.url)


# The family was trained on bare questions, so the programs add no instruction.


@pytest.mark.parametrize("index", range(len(KINDS), 2 * len(KINDS)), ids=KINDS)
def test_a_guided_thought_lets_the_base_write_the_truth(backend, index):
    one = problem(TEST, index)
    asked = {"alpha": 1.0, "regex": "[0-9]{1,3}", "instruction": ""}
    result = think_then_answer(backend, [one.picture()], one.question, **asked)
    assert result.value == one.answer and read_answer(result.thought.text).thinks


# An odd row, which the base names wrongly at a glance.
ODD = problem(TEST, 9)
ASKED = {"instruction": "", "max_tokens": ANSWER_TOKENS}


def test_a_vote_of_thoughts_is_the_truth(backend):
    result = majority_vote(backend, [ODD.picture()], ODD.question, alphas=[0.75, 1.0, 1.5], **ASKED)
    assert result.answer == ODD.answer and result.agreement > 0.5


def test_the_ladder_changes_once_to_the_truth(backend):
    result = alpha_ladder(backend, [ODD.picture()], ODD.question, alphas=[0.0, 0.5, 1.0], **ASKED)
    assert result.changes == [(0.0, 0.5)]
    assert [rung.answer == ODD.answer for rung in result.rungs] == [False, True, True]


def test_the_comparison_has_the_truth_where_it_is_guided(backend):
    columns = compare(backend, [ODD.picture()], ODD.question, **ASKED).columns
    assert [column.answer == ODD.answer for column in columns] == [False, True, True]


def test_the_expert_changes_how_it_begins(backend):
    """One flipped token, the first: the base would have answered at once."""
    base, guided = explain(backend, [ODD.picture()], ODD.question, alphas=[0.0, 1.0], **ASKED).answers
    assert base.flips == 0
    flipped = [at for at, token in enumerate(guided.tokens) if token.flipped]
    assert flipped[0] == 0 and len(flipped) < len(guided.tokens) / 10
    assert guided.tokens[0].base_text == base.tokens[0].text and guided.tokens[0].text.startswith("<think")


def test_the_first_answer_of_a_conversation_is_the_truth(backend):
    """What comes after it the family has not learned; that it comes, and in its form, is tested."""
    verified = verify_and_revise(backend, [ODD.picture()], ODD.question, alpha=1.0, rounds=1, **ASKED)
    assert verified.first.claim == ODD.answer and verified.rounds[0].verdict in ("correct", "wrong")
    described = describe_then_reason(backend, [ODD.picture()], [ODD.question], alpha=1.0, **ASKED)
    assert described.description.alpha == 0.0 and described.answers[0].generation.alpha == 1.0
    closer = look_closer(backend, [ODD.picture()], ODD.question, alpha=1.0, **ASKED)
    left, top, right, bottom = closer.shown
    assert 0 <= left < right <= PIXELS and 0 <= top < bottom <= PIXELS


def test_the_command_line_adds_no_instruction_for_the_family(family, tmp_path, capsys):
    ODD.picture().save(tmp_path / "odd.png")
    alphas = ["--alphas", "0.5", "1"]
    ladder_command(
        ["--url", family.url, "--image", str(tmp_path / "odd.png"), "--question", ODD.question, *alphas, "--json"]
    )
    told = json.loads(capsys.readouterr().out)
    assert [rung["answer"] for rung in told["rungs"]] == [ODD.answer] * 2


@pytest.fixture(scope="module")
def speculating(tmp_path_factory):
    """The family, whose first expert writes three tokens ahead."""
    flags = (*DEVICE, "--max-total-tokens", "16384", "--random-seed", "1", "--proxy-speculate", "3")
    flags = (*flags, "--proxy-expert", f"{tiny_family.SPECIALIST.name}={tiny_family.SPECIALIST}")
    proxies = (tiny_family.EXPERT, tiny_family.AMATEUR)
    log = tmp_path_factory.mktemp("speculating") / "log"
    with serving(command(tiny_family.BASE, proxies, *flags), log) as server:
        yield server


@pytest.mark.skipif(ON_GPU, reason="16 bits: a chain that is read at once is rounded otherwise")
@pytest.mark.parametrize("shaped", [{}, {"regex": "(I think|The|It|No|Yes)[a-z0-9 ,.<>/]*"}], ids=["free", "a regex"])
def test_answers_that_were_written_ahead_are_the_same(family, speculating, shaped):
    """Kills: a token that follows from a draft and not from the law; drafts that are never accepted."""
    asked = list(product(problems(TEST, 8), (0.0, 0.5, 1.5)))

    def ask(server, one, alpha):
        messages = chat_messages(one.question, [one.picture()])
        answer = server.chat(messages, alpha, max_tokens=ANSWER_TOKENS, extra_body=dict(shaped))
        choice = answer["choices"][0]
        return (choice["message"]["content"], choice["finish_reason"]), choice["meta_info"]

    def ask_all(server):
        with ThreadPoolExecutor(12) as pool:
            return zip(*pool.map(lambda wish: ask(server, *wish), asked), strict=True)

    (wanted, _), (told, metas) = ask_all(family), ask_all(speculating)
    assert list(told) == list(wanted)
    guided = [meta for (_, alpha), meta in zip(asked, metas, strict=True) if alpha == 0.5]
    cycles = sum(meta["spec_verify_ct"] for meta in guided)
    # The first token of an answer is the prompt's.
    tokens_a_cycle = sum(meta["completion_tokens"] - 1 for meta in guided) / cycles
    assert tokens_a_cycle > (1.4 if shaped else 3), "3.8 of 4; under a grammar that neither would write by itself 1.6"


@pytest.mark.skipif(ON_GPU, reason="16 bits: a chain that is read at once is rounded otherwise")
def test_one_expert_writes_ahead_for_others_and_their_answers_are_the_same(family, speculating):
    """Kills: a draft that counts for its expert's law, and drafts that count for no other expert."""
    wishes = [
        {"proxy_expert": "specialist", "proxy_alpha": 0.5},
        {"proxy_experts": {"expert": 0.25, "specialist": 0.25}},
        {"proxy_expert": "expert", "proxy_alpha": 0.5},
    ]
    asked = list(product(problems(TEST, 6), wishes))

    def ask(server, one, said):
        messages, extra = chat_messages(one.question, [one.picture()]), {"custom_params": said}
        [choice] = server.chat(messages, max_tokens=ANSWER_TOKENS, extra_body=extra)["choices"]
        return choice["message"]["content"], choice["meta_info"]

    def ask_all(server):
        with ThreadPoolExecutor(len(asked)) as pool:
            return zip(*pool.map(lambda wish: ask(server, *wish), asked), strict=True)

    (wanted, _), (told, metas) = ask_all(family), ask_all(speculating)
    assert told == wanted
    for place in range(len(wishes)):
        of_wish = metas[place :: len(wishes)]
        cycles = sum(meta["spec_verify_ct"] for meta in of_wish)
        assert sum(meta["completion_tokens"] - 1 for meta in of_wish) / cycles > 2.5, "3.4 to 3.8 of 4"


def test_a_stream_with_an_interval_gets_one_token_a_cycle_beside_others_that_get_several(speculating):
    """Kills: a chain that jumps over the numbers of tokens at which SGLang sends: nothing comes before the end."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_family.BASE)

    def body(one, **said):
        turns = chat_messages(one.question, [one.picture()])
        turns[0]["content"][0] = {"type": "image"}
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        params = {"temperature": 0, "max_new_tokens": ANSWER_TOKENS, "custom_params": {"proxy_alpha": 0.5}, **said}
        images = [data_url(one.picture())]
        return {"text": text, "image_data": images, "sampling_params": params}

    def stream(one):
        response = speculating.post("/generate", {**body(one, stream_interval=4), "stream": True}, stream=True)
        lines = [line[6:] for line in response.iter_lines(decode_unicode=True) if line.startswith("data: {")]
        return [json.loads(line) for line in lines]

    def whole(one):  # of such an answer an interval says nothing
        return speculating.generate(**body(one, stream_interval=4))

    asked = list(problems(TEST, 6))
    with ThreadPoolExecutor(12) as pool:
        streams, answers = [pool.submit(stream, one) for one in asked], list(pool.map(whole, asked))
    tokens, cycles = (
        sum(answer["meta_info"][counted] for answer in answers) for counted in ("completion_tokens", "spec_verify_ct")
    )
    assert tokens > 100 and cycles < tokens / 2, "few drafts are right, so that little is said here"
    for steps, answer in zip((future.result() for future in streams), answers, strict=True):
        tokens = answer["meta_info"]["completion_tokens"]
        # A process that is late sends the newest of several alone.
        assert set(step["meta_info"]["completion_tokens"] for step in steps) <= {*range(1, tokens, 4), tokens}
        assert steps[-1]["meta_info"]["spec_verify_ct"] == tokens - 1
        if not ON_GPU:  # in 16 bits a chain that is read at once is rounded otherwise
            assert steps[-1]["output_ids"] == answer["output_ids"]


@pytest.mark.skipif(ON_GPU, reason="16 bits: a chain that is read at once is rounded otherwise")
def test_a_strength_after_a_marker_that_ends_in_the_middle_of_a_chain(family, speculating):
    """The marker is three tokens of the family. Kills: a strength that begins with the chain, or after all of it."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_family.BASE)
    assert len(tokenizer.encode(MARKER)) > 1
    law = {"kind": "schedule", "points": [[0, 1.0]], "after": {"text": MARKER, "alpha": -0.5}}
    extra = {"custom_params": {"proxy_law": law, "proxy_trace": True}}

    def ask(server, one):
        answer = server.chat(chat_messages(one.question, [one.picture()]), max_tokens=ANSWER_TOKENS, extra_body=extra)
        return answer["choices"][0]["meta_info"]

    with ThreadPoolExecutor(8) as pool:
        wanted, told = (list(pool.map(partial(ask, server), problems(TEST, 8))) for server in (family, speculating))
    ends = []
    for one, other in zip(wanted, told, strict=True):
        tokens = one["proxy_trace"]["token_id"]
        assert other["proxy_trace"]["token_id"] == tokens
        alphas = [-0.5 if MARKER in tokenizer.decode(tokens[:count]) else 1.0 for count in range(len(tokens))]
        assert one["proxy_trace"]["alpha"] == other["proxy_trace"]["alpha"] == pytest.approx(alphas)
        ends += [alphas.index(-0.5)] if -0.5 in alphas else []
    assert len(set(ends)) > 2, "few think, or all at the same length"
    cycles = sum(meta["spec_verify_ct"] for meta in told)
    assert sum(meta["completion_tokens"] for meta in told) / cycles > 2, "chains that end after a token have no middle"


def test_the_weights_are_those_of_the_model_card():
    card = (tiny_family.FOLDER / "README.md").read_text()
    for folder in (tiny_family.BASE, tiny_family.EXPERT, tiny_family.SPECIALIST, tiny_family.AMATEUR):
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        assert digest[:12] in card, folder.name
        config = json.loads((folder / "config.json").read_text())
        assert config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]


def test_experts_and_amateur_are_one_architecture_and_the_base_is_three_to_four_times_larger():
    small = tiny_family.EXPERT, tiny_family.SPECIALIST, tiny_family.AMATEUR
    sizes = {folder.name: (folder / "model.safetensors").stat().st_size for folder in (tiny_family.BASE, *small)}
    assert 3 < sizes["base"] / sizes["amateur"] < 4 and sum(sizes.values()) < 25e6
    assert len({(folder / "config.json").read_text() for folder in small}) == 1
