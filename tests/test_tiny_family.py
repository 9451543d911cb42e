"""Laws of the tiny family's task, corpus and training: what its scores rest on."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from benchmarks.tiny_family import corpus, pretrain
from benchmarks.tiny_family.checkpoint import family_tokenizer, load_model, new_model, save_model
from benchmarks.tiny_family.config import load_config
from benchmarks.tiny_family.forward import Forward
from benchmarks.tiny_family.grpo import (
    SLOTS,
    Questions,
    first_same,
    logprobs,
    parts,
    rate_factor,
    sequences_of,
    sparing_parts,
)
from benchmarks.tiny_family.resuming import load_state, open_log, save_state
from benchmarks.tiny_family.rollout import Sampler
from benchmarks.tiny_family.sight import IGNORED, PARTS, labels
from benchmarks.tiny_family.solutions import SLOW_SHARE, slow_solution, solution
from sgl_proxythinker.tiny_family.grading import is_right, read_answer
from sgl_proxythinker.tiny_family.problems import KINDS, LEVELS, make_problem, problem, problems, split_of
from sgl_proxythinker.tiny_family.scene import ARROWS, CLEAR, WORN, Cell, Scene, draw, name
from sgl_proxythinker.tiny_family.wordings import TEST, TRAIN, VALIDATION, WORDINGS

pytestmark = pytest.mark.heavy

SPLITS = (TRAIN, VALIDATION, TEST)
HELD_OUT_DIGEST = "2dd5622fecb78272"


def some_problems(split: str = TRAIN, count: int = 20):
    """Of each kind and level."""
    rng = random.Random(3)
    return [make_problem(split, kind, level, rng) for kind in KINDS for level in LEVELS for _ in range(count)]


@pytest.fixture(scope="module")
def config():
    return load_config()


@pytest.fixture(scope="module")
def tokenizer(config):
    return family_tokenizer(config)


@pytest.fixture(scope="module")
def checkpoint(config, tokenizer, tmp_path_factory):
    """An untrained amateur, as it is stored."""
    folder = tmp_path_factory.mktemp("family") / "amateur"
    torch.manual_seed(0)
    save_model(new_model(config, "amateur", tokenizer), folder, config, "amateur", tokenizer)
    return folder


# The task


def test_no_wording_is_in_two_splits():
    for kind in KINDS:
        wordings = [wording for split in SPLITS for wording in WORDINGS[kind][split]]
        assert len(wordings) == len(set(wordings)), kind


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_holds_its_own_scenes_only(split):
    """Also those of the questions that are asked beside the first one: a picture has one scene."""
    assert all(split_of(one.scene) == split for one in some_problems(split, 5))
    if split == TRAIN:
        assert all(split_of(corpus.conversation(1, index).scene) == TRAIN for index in range(50))


def test_a_problem_follows_from_its_split_and_number():
    assert problem(TEST, 7) == problem(TEST, 7)
    assert problem(TEST, 7).scene != problem(VALIDATION, 7).scene


def test_the_held_out_set_is_the_one_that_was_scored():
    """What the scores in the model card are about must not drift."""
    lines = [
        json.dumps([one.kind, one.level, one.question, one.answer, one.scene.fingerprint, one.look, one.worn])
        for one in problems(TEST, 1000)
    ]
    lines += [repr(CLEAR), repr(WORN)]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == HELD_OUT_DIGEST


def test_answers_are_true():
    """Each kind is solved here again, from the cells."""
    for one in some_problems():
        cells, size = one.scene.cells, one.scene.size

        def matching(subject, cells=cells):
            colour, shape = subject
            return [cell for cell in cells if colour in (None, cell.colour) and shape in (None, cell.shape)]

        if one.kind == "count":
            truth = len(matching(one.subject[0]))
        elif one.kind == "add":
            truth = sum(cell.digit for cell in matching(one.subject[0]))
        elif one.kind == "compare":
            truth = len(matching(one.subject[0])) - len(matching(one.subject[1]))
            assert truth > 0
        elif one.kind == "path":
            column, row, steps = one.subject
            for _ in range(steps):
                right, down = ARROWS[cells[row * size + column].shape]
                column, row = column + right, row + down
                assert 0 <= column < size and 0 <= row < size
            truth = cells[row * size + column].digit
        else:
            totals = Counter(sum(cell.digit for cell in one.scene.row(row)) for row in range(size))
            (truth,) = (total for total, times in totals.items() if times == 1)
            assert len(totals) == 2
        assert one.answer == str(truth), one.question


def test_a_guess_without_the_picture_is_poor():
    for kind in KINDS:
        answers = Counter(one.answer for one in problems(TEST, 1000) if one.kind == kind)
        assert answers.most_common(1)[0][1] / answers.total() < 0.25, kind


def test_a_question_names_what_it_is_about():
    for one in some_problems(TEST, 5):
        if one.kind == "path":
            assert name(*one.subject[:2]) in one.question and str(one.subject[2]) in one.question
        for colour, shape in one.subject if one.kind in ("count", "add", "compare") else ():
            assert (colour or "") in one.question and (shape or "") in one.question


def test_looks_differ_and_scenes_stay():
    one = problem(TEST, 1)
    clear, again, worn = (draw(one.scene, 1, False), draw(one.scene, 1, False), draw(one.scene, 1, True))
    assert clear.tobytes() == again.tobytes() != worn.tobytes()
    assert clear.tobytes() != draw(one.scene, 2, False).tobytes()
    assert CLEAR.heights[0] >= WORN.heights[1]


# The corpus


def test_slow_answers_end_in_the_truth_and_take_their_slips_back():
    rng = random.Random(0)
    for one in some_problems():
        text = slow_solution(one, rng)
        assert is_right(text, one.answer) and read_answer(text).thinks
        lines = text.split("\n")
        for at, line in enumerate(lines):
            if line == "wait,":
                assert lines[at + 1] != lines[at - 1], text


def test_most_answers_are_direct():
    rng, some = random.Random(0), some_problems(count=100)
    slow = sum(read_answer(solution(one, rng)).thinks for one in some) / len(some)
    assert abs(slow - SLOW_SHARE) < 0.03


def test_only_answers_are_learned(tokenizer):
    prompts = corpus.Prompts(tokenizer)
    one = corpus.conversation(1, 3)
    batch = prompts.conversations([one])
    learned = batch.labels[0][batch.labels[0] != IGNORED].tolist()
    answers = [token for _, answer in one.turns for token in prompts.answer(answer)]
    assert learned == answers[: len(learned)] and learned
    assert torch.equal(batch.input_ids[0][batch.labels[0] != IGNORED], torch.tensor(learned))


# Training


def test_equal_pictures_are_read_as_transformers_reads_them(checkpoint, tokenizer):
    """The fast forward pass gives the logits of the model class, whose processor cuts and normalises the picture."""
    model, processor = load_model(checkpoint).eval(), AutoProcessor.from_pretrained(checkpoint)
    prompts = corpus.Prompts(tokenizer)
    some = [problem(TEST, index) for index in range(3)]
    batch, forward = prompts.batch(some), Forward(model, prompts.image_at, SLOTS)
    with torch.no_grad():
        logits = forward.head(forward.hidden_states(batch.input_ids, forward.see(batch.pictures)))
    for row, one in enumerate(some):
        content = [{"type": "image"}, {"type": "text", "text": one.question}]
        text = processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        inputs = processor(text=[text], images=[one.picture()], return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == prompts.prompt(one.question)
        is_image = (inputs["input_ids"] == model.config.image_token_id).int()
        with torch.no_grad():
            wanted = model(**{**inputs, "mm_token_type_ids": is_image}).logits[0]
        torch.testing.assert_close(logits[row, : len(wanted)], wanted, rtol=1e-4, atol=1e-4)


def test_each_cell_is_taught_in_the_token_that_holds_its_middle():
    """A picture of one colour but for one cell: that cell's label stands where the picture differs."""
    for size in (3, 4):
        for index in range(size * size):
            cells = [Cell("red", "square", 1)] * size**2
            plain = np.asarray(draw(Scene(size, tuple(cells)), 5, False), dtype=int)
            cells[index] = Cell("blue", "square", 1)
            scene = Scene(size, tuple(cells))
            differs = np.abs(np.asarray(draw(scene, 5, False), dtype=int) - plain).sum(-1) > 0
            middle = [round(float(axis.mean())) for axis in differs.nonzero()]
            of_tokens = labels(scene)
            assert sum(one[0] != IGNORED for one in of_tokens) == size * size
            (blue,) = (at for at, one in enumerate(of_tokens) if one[0] == PARTS[0].index("blue"))
            row, column = divmod(blue, 6)
            assert abs(28 * row + 14 - middle[0]) < 20 and abs(28 * column + 14 - middle[1]) < 20


def test_sampled_tokens_are_those_of_the_whole_pass(checkpoint, tokenizer):
    """The decoder with its own cache against one pass over prompt and answer; and log p of what GRPO learns from."""
    model, prompts = load_model(checkpoint).eval(), corpus.Prompts(tokenizer)
    batch = prompts.batch([problem(TEST, index) for index in range(2)])
    sampler = Sampler([model], prompts, 4, SLOTS)
    answers = sampler.sample(batch, samples=2, temperature=0.0, tokens=12)
    sequences, mask = sequences_of(batch, answers, 2)
    forward = Forward(model, prompts.image_at, SLOTS)
    with torch.no_grad():
        seen = forward.see(batch.pictures).repeat_interleave(2, 0)
        rows = forward.head(forward.hidden_states(sequences, seen))[..., : tokenizer.get_vocab_size()]
        chances = logprobs(forward, batch.pictures, sequences, 2, tokenizer.get_vocab_size())
    best = rows[:, :-1].argmax(-1)
    assert mask.sum() == answers.is_answer.sum() > 0
    assert torch.equal(best[mask[:, 1:]], sequences[:, 1:][mask[:, 1:]])
    wanted = rows[:, :-1].log_softmax(-1).amax(-1)
    torch.testing.assert_close(chances[mask[:, 1:]], wanted[mask[:, 1:]])


def test_ended_answers_can_be_left_out(checkpoint, tokenizer):
    """Greedy: what remains is not disturbed by what is dropped. Any token may be the end."""
    model, prompts = load_model(checkpoint).eval(), corpus.Prompts(tokenizer)
    batch = prompts.batch([problem(TEST, index) for index in range(12)])
    sampler = Sampler([model], prompts, 24, SLOTS)
    whole = sampler.sample(batch, samples=2, temperature=0.0, tokens=30)
    ends, counts = whole.tokens[:, :20].unique(return_counts=True)
    sampler.end = int(ends[counts.argmax()])
    wanted, got = (
        sampler.sample(batch, samples=2, temperature=0.0, tokens=30, sparing=sparing) for sparing in (False, True)
    )
    assert 0 < (~wanted.is_answer).any(1).sum()
    assert torch.equal(got.is_answer, wanted.is_answer)
    assert torch.equal(got.tokens[got.is_answer], wanted.tokens[wanted.is_answer])
    again = sampler.sample(batch, samples=2, temperature=0.0, tokens=30)
    assert torch.equal(again.tokens, wanted.tokens), "what was dropped is there again"


def test_equal_answers_are_read_once_and_weigh_as_many(checkpoint, tokenizer):
    """Sums over answers of a weight times log p, all rows read and sparingly."""
    model, prompts = load_model(checkpoint).eval(), corpus.Prompts(tokenizer)
    samples, batch = 4, prompts.batch([problem(TEST, index) for index in range(6)])
    answers = Sampler([model], prompts, 24, SLOTS).sample(batch, samples=samples, temperature=1.0, tokens=12)
    for tensor in (answers.tokens, answers.is_answer):
        tensor[1::samples] = tensor[0::samples]
        tensor[3::samples] = tensor[0::samples]
    answers.is_answer[5 * samples + 2, 4:] = False
    sequences, mask = sequences_of(batch, answers, samples)
    same_as = first_same(torch.cat((torch.arange(24)[:, None] // samples, sequences), 1))
    assert same_as.view(-1, samples)[:, [1, 3]].eq(torch.arange(0, 24, samples)[:, None]).all()
    times = torch.zeros(24).index_add(0, same_as, torch.ones(24))
    forward = Forward(model, prompts.image_at, SLOTS)

    def total(some_parts, times):
        sums = torch.zeros(())
        for groups, some, repeats, length in some_parts:
            read = logprobs(
                forward, batch.pictures[groups], sequences[some, :length], repeats, tokenizer.get_vocab_size()
            )
            sums += (read * mask[some, 1:length] * times[some, None]).sum()
        return sums

    with torch.no_grad():
        wanted = total(parts(mask, samples), torch.ones(24))
        assert total(sparing_parts(mask, samples, same_as), times).item() == pytest.approx(wanted.item(), rel=1e-4)
    assert sum(len(part.rows) for part in sparing_parts(mask, samples, same_as)) <= 12


def test_further_experts_differ_in_what_the_config_says(tokenizer):
    config = load_config(grpo={"problems": 30})
    assert config.expert("expert") == config.grpo and config.grpo.rewarded == KINDS and not config.grpo.cooled
    special = config.expert("specialist")
    assert special.problems == 30 and special.seed == config.grpo.seed and set(special.asked) == set(KINDS)
    _, truths = next(iter(Questions(corpus.Prompts(tokenizer), special, 0)))
    assert 0 < sum(truth is None for truth in truths) < 30


def test_a_rate_cools_over_the_last_steps():
    settings = load_config(grpo={"steps": 10, "warmup": 2, "cooled": 4}).grpo
    factors = [round(rate_factor(step, settings), 3) for step in range(10)]
    assert factors == [0.5, 1, 1, 1, 1, 1, 0.775, 0.55, 0.325, 0.1]
    constant = load_config(grpo={"steps": 10, "warmup": 2}).grpo
    assert [rate_factor(step, constant) for step in range(10)] == [min(1.0, (step + 1) / 2) for step in range(10)]


def test_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "LOG_EVERY", 1)
    config = load_config(pretrain={"batch": 2, "steps": 3})
    for run, stops in (("whole", (3,)), ("parts", (1, 3))):
        for until in stops:
            pretrain.train(config, _folder(tmp_path / run), ["cpu"], workers=0, compiled=False, until=until)
    for role in pretrain.ROLES:
        whole, parts = (load_model(tmp_path / run / role).state_dict() for run in ("whole", "parts"))
        assert all(torch.equal(whole[key], parts[key]) for key in whole), role
    losses = [
        [(row["step"], row["base"]) for row in map(json.loads, (tmp_path / run / "pretrain.jsonl").open())]
        for run in ("whole", "parts")
    ]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == [1, 2, 3]


def test_a_training_goes_on_with_its_own_settings(tmp_path):
    begun = load_config(pretrain={"batch": 2, "steps": 3}).pretrain
    save_state(tmp_path / "state.pt", begun, 2, {})
    assert load_state(tmp_path / "state.pt", begun)["step"] == 2
    with pytest.raises(ValueError, match="use another folder"):
        load_state(tmp_path / "state.pt", load_config(pretrain={"batch": 4, "steps": 3}).pretrain)
    assert load_state(tmp_path / "none.pt", begun) is None


def test_a_log_holds_no_step_twice(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)))
    with open_log(log, 2) as lines:
        lines.write('{"step": 3, "again": true}\n')
    assert [json.loads(row) for row in log.open()] == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def _folder(path):
    path.mkdir(exist_ok=True)
    return path
