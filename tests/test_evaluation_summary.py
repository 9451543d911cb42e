"""What a run's answers are worth, against numbers that were worked out by hand; and a folder that loses nothing."""

from __future__ import annotations

import itertools
import json
import multiprocessing

import pytest

from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.manifest import check_same
from sgl_proxythinker.evaluation.presets import read_presets
from sgl_proxythinker.evaluation.questions import AnswerKind
from sgl_proxythinker.evaluation.records import AnswerRecord, Behaviour, BehaviourRecord, Grade, Outcome, QuestionRecord
from sgl_proxythinker.evaluation.run_folder import Asked, RunFolder
from sgl_proxythinker.evaluation.sampling import Sampling
from sgl_proxythinker.evaluation.statistics import bootstrap, compare, mean_interval, pass_at, sign_test, wilson
from sgl_proxythinker.evaluation.summary import compare_settings, macro_average, summarize, summarize_behaviours

RIGHT, WRONG, NOTHING = Grade(claim="5", right=True), Grade(claim="6", right=False), Grade(claim="", right=False)


def answer(question, right, setting="alpha-0.5", repeat=1, outcome=Outcome.ANSWERED, benchmark="a", **more):
    grade = RIGHT if right else WRONG
    fields = {"published": grade, "last": grade, "text": "", "tokens": 10, "seconds": 1.0, **more}
    return AnswerRecord(
        benchmark=benchmark, question=str(question), setting=setting, repeat=repeat, outcome=outcome, **fields
    )


def failed(question, **more):
    nothing = {"published": NOTHING, "last": NOTHING, "tokens": 0, "error": "gone"}
    return answer(question, False, outcome=Outcome.FAILED, **nothing, **more)


def test_wilson_is_the_published_interval():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0), "of nothing, nothing is known"


def test_the_interval_of_drawn_questions():
    """Of 400 questions, half of them right: 0.5 plus and minus 1.96 * 0.5 / 20."""
    low, high = bootstrap([0.0, 1.0] * 200)
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.006)
    assert bootstrap([0.5] * 9) == (0.5, 0.5)
    assert mean_interval([1.0] * 3) == wilson(3, 3) and mean_interval([0.0] * 3) == wilson(0, 3)


@pytest.mark.parametrize("count, right, k", [(4, 1, 2), (5, 3, 2), (4, 0, 4), (4, 4, 1), (6, 2, 3)])
def test_pass_at_counts_draws_that_hold_a_right_answer(count, right, k):
    draws = list(itertools.combinations([1] * right + [0] * (count - right), k))
    assert pass_at(k, count, right) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_the_sign_test_has_two_sides():
    # 2 * (1 + 5) / 2**5, and 2 * (1 + 10 + 45 + 120) / 2**10
    assert sign_test(1, 4) == sign_test(4, 1) == pytest.approx(0.375)
    assert sign_test(7, 3) == pytest.approx(0.34375)
    assert sign_test(0, 6) == pytest.approx(2 / 64) and sign_test(0, 0) == 1.0


def test_settings_are_compared_on_the_questions_of_both():
    answers = [answer(index, index < 6) for index in range(10)] + [
        answer(index, index in (0, 1, 9), "alpha-0") for index in range(2, 12)
    ]
    guided, base = summarize(answers, [])
    paired = compare_settings(guided, base, "last")
    # Of questions 2 to 9, guided has 2, 3, 4, 5 right, the base 9.
    assert (paired.better, paired.worse, paired.difference) == (4, 1, pytest.approx(3 / 8))
    assert paired.p == pytest.approx(0.375)
    with pytest.raises(ValueError, match="in common"):
        compare_settings(guided, summarize([answer(99, True, "alpha-0")], [])[0], "last")
    assert compare([0.5, -0.5, 0.0]).p == 1.0


def test_what_came_of_requests_is_counted_apart():
    """Kills: a failed request in an accuracy, an unmarked answer that was cut off."""
    answers = [
        answer(0, True), answer(1, False), answer(2, False, last=NOTHING), failed(3),
        answer(4, False, outcome=Outcome.CUT_OFF, last=NOTHING, tokens=40),
        answer(5, False, outcome=Outcome.EMPTY, last=NOTHING, tokens=0),
    ]  # fmt: skip
    (summary,) = summarize(answers, [])
    assert summary.questions == 5 and summary.failed == 1 and summary.unmarked == 1
    assert summary.accuracy["last"].value == pytest.approx(1 / 5)
    assert summary.accuracy["last"][1:] == wilson(1, 5)
    assert summary.tokens == pytest.approx((10 + 10 + 10 + 40 + 0) / 5)
    assert dict(summary.outcomes) == {"answered": 3, "failed": 1, "cut_off": 1, "empty": 1}
    assert summarize([failed(0)], []) == []


def test_several_answers_to_a_question_are_one_of_many():
    answers = [answer(question, repeat <= question, repeat=repeat) for question in range(5) for repeat in range(1, 5)]
    (summary,) = summarize(answers, [])
    assert summary.accuracy["last"].value == pytest.approx(0.5)
    assert summary.pass_at["last"][1].value == pytest.approx(0.5)
    # Of 0, 1, 2, 3, 4 right ones in 4: 1 - C(4 - right, 2) / 6
    assert summary.pass_at["last"][2].value == pytest.approx((0 + 3 / 6 + 5 / 6 + 1 + 1) / 5)
    assert summary.pass_at["last"][4].value == pytest.approx(4 / 5)
    assert max(summary.pass_at["last"]) == 4
    answers = [each for each in answers if not (each.question == "3" and each.repeat > 1)]
    (summary,) = summarize(answers, [])
    assert max(summary.pass_at["last"]) == 1, "for k that every question has answers for"
    assert summary.accuracy["last"][1:] != wilson(9, 17), "answers to one question are not independent"


def test_the_macro_average_counts_each_benchmark_the_same():
    answers = [answer(index, True) for index in range(9)] + [answer(0, False, benchmark="b")]
    assert macro_average(summarize(answers, []), "last") == pytest.approx(0.5)


def test_accuracy_by_group():
    questions = [
        QuestionRecord(benchmark="a", id=str(index), text="", kind=AnswerKind.TEXT, answer="", choices=(), pictures=(),
                       groups={"level": "high" if index else "low"})
        for index in range(3)
    ]  # fmt: skip
    (summary,) = summarize([answer(0, True), answer(1, False), answer(2, True)], questions)
    assert {name: share.value for name, share in summary.groups["level"].items()} == {"high": 0.5, "low": 1.0}


def test_behaviours_are_counted_by_question():
    """Ten questions with a hundred answers each are ten questions."""
    records = [
        BehaviourRecord(benchmark="a", question=str(question), setting="s", repeat=repeat, by="patterns",
                        counts=dict.fromkeys(Behaviour, question))
        for question in range(10) for repeat in range(1, 101)
    ]  # fmt: skip
    (summary,) = summarize_behaviours(records)
    share = summary.counts[Behaviour.VERIFICATION]
    assert summary.answers == 1000 and share.value == pytest.approx(4.5)
    assert share.high - share.low > 2, "of 1,000 independent answers it would be 0.36"


def test_a_folder_gives_back_what_it_was_given(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert not (tmp_path / "run").exists() and folder.answers() == {} and folder.manifest() is None
    first, again = answer(1, False), answer(1, True)
    for each in (first, again, failed(2), answer(3, True, repeat=2)):
        folder.add(each)
    assert list(RunFolder(tmp_path / "run").answers().values()) == [again, failed(2), answer(3, True, repeat=2)]
    assert folder.answered() == {Asked("a", "alpha-0.5", "1", 1), Asked("a", "alpha-0.5", "3", 2)}


def test_a_torn_line_is_asked_again_and_nothing_else(tmp_path):
    """At the end, as a kill leaves it, and in the middle, as a full disk does. Opening a folder changes nothing."""
    folder, file = RunFolder(tmp_path), tmp_path / "answers.jsonl"
    folder.add(answer(1, True))
    whole = file.read_bytes()
    file.write_bytes(whole + answer(2, True).model_dump_json().encode()[:40])
    torn = file.read_bytes()
    reopened = RunFolder(tmp_path)
    assert {asked.question for asked in reopened.answered()} == {"1"} and file.read_bytes() == torn
    reopened.add(answer(3, True))
    assert {asked.question for asked in RunFolder(tmp_path).answered()} == {"1", "3"}
    assert file.read_bytes().startswith(torn + b"\n")


def test_a_write_that_fails_harms_no_other_line(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.add(answer(1, True))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            folder.add(answer(2, True))
    folder.add(answer(3, True))
    assert {asked.question for asked in folder.answered()} >= {"1", "3"}


def _hold(path, held, done):
    with RunFolder(path).alone():
        held.set()
        done.wait(60)


@pytest.mark.heavy
def test_two_runs_do_not_share_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held, done))
    other.start()
    assert held.wait(60)
    with pytest.raises(EvaluationError, match="another run writes into"), RunFolder(tmp_path).alone():
        pass
    done.set()
    other.join(60)
    with RunFolder(tmp_path).alone():
        pass


def session(**more):
    proxy = {"expert": "e", "amateur": "a", "experts": {}}
    told = {"tokenizer_path": "m", "mm_process_config": {}}
    server = {"model_path": "m", "dtype": "bfloat16", "proxy": proxy, **told}
    return {"model": "m", "server": server | more.pop("server", {})} | more


@pytest.mark.parametrize(
    "now, made_by, said",
    [
        (session(model="other"), {}, "another model"),
        (session(server={"dtype": "float16"}), {}, "server's dtype"),
        (session(server={"revision": "x"}), {}, "server's revision"),
        (session(server={"proxy": {"expert": "other", "amateur": "a", "experts": {}}}), {}, "server's expert"),
        (session(server={"proxy": {"expert": "e", "amateur": "o", "experts": {}}}), {}, "server's amateur"),
        (session(), {"alpha-0.5": {"proxy_alpha": 0.5, "proxy_clip": 2.0}}, "its proxy_clip was left out and is 2.0"),
        (session(), {"guided": {"proxy_alpha": 0.7}}, "setting guided: its proxy_alpha was 0.5 and is 0.7"),
        (session(server={"tokenizer_path": "other"}), {}, "server's tokenizer_path"),
        (session(server={"mm_process_config": {"image": {"max_pixels": 9}}}), {}, "server's mm_process_config"),
    ],
)
def test_a_run_goes_on_only_as_it_began(now, made_by, said):
    run = {"preset": {"suffix": "x"}, "sampling": {"repeats": 1}}
    before = {
        "run": run,
        "sessions": [session(), session(model="later")],
        "made_by": {"alpha-0.5": {"proxy_alpha": 0.5}, "guided": {"proxy_alpha": 0.5}, "plain": None},
    }
    check_same(before, run, session(), {"alpha-0.5": {"proxy_alpha": 0.5}, "new": {"proxy_alpha": 1.0}})
    with pytest.raises(EvaluationError, match=said):
        check_same(before, run, now, made_by)
    with pytest.raises(EvaluationError, match="its suffix was 'x' and is 'y'"):
        check_same(before, run | {"preset": {"suffix": "y"}}, session(), {})


def test_what_an_older_folder_does_not_say_is_unknown_and_not_another():
    older = session()
    for name in ("tokenizer_path", "mm_process_config"):
        del older["server"][name]
    before = {"run": {}, "sessions": [older], "made_by": {"plain": None}}
    check_same(before, {}, session(), {"plain": {"proxy_alpha": 0.5}})


def test_an_older_folder_whose_answers_have_the_models_own_penalty_does_not_go_on():
    """Kills: half of a folder's answers with Qwen2.5-VL's repetition penalty of 1.05, half without."""
    sampling = Sampling(repeats=1, temperature=0, top_p=0.95, seed=0)
    before = {"run": {"sampling": sampling.model_dump()}, "sessions": [session()], "made_by": {}}
    check_same(before, {"sampling": sampling.as_said(is_sglang=False)}, session(), {})
    with pytest.raises(EvaluationError, match="another sampling: its repetition_penalty was left out and is 1.0"):
        check_same(before, {"sampling": sampling.as_said(is_sglang=True)}, session(), {})


def test_presets_are_what_the_papers_scripts_send():
    """Their strings, as src/math_common_utils.py at f0de02a has them, by prompt type."""
    suffixes = {name: preset.suffix for name, preset in read_presets().items()}
    assert suffixes["boxed"] == "\n\nYour final answer MUST BE put in \\boxed{}."
    assert suffixes["vl-rethinker"] == "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert suffixes["thinklite-vl"].startswith(r"\n\nYou FIRST think about") and suffixes["tiny-family"] == ""
    assert suffixes["r1-onevision"].endswith("final answer in <answer> </answer> tags.")
    assert suffixes["vl-rethinker-72b"].startswith("\n\nGuidelines: \nPlease think step by step, and **regularly")
    assert {preset.max_tokens for name, preset in read_presets().items() if name != "tiny-family"} == {4096}


def test_a_broken_manifest_says_so(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({})[:1])
    with pytest.raises(EvaluationError, match="can't be read"):
        RunFolder(tmp_path).manifest()
