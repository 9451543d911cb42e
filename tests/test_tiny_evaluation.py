"""What an evaluation makes of answers: intervals, pass@k, files that go on, tables. No inspect-ai, no server."""

from __future__ import annotations

import itertools
from dataclasses import asdict

import pytest
from scipy.stats import binomtest

from benchmarks.tiny_family import worth
from benchmarks.tiny_family.measures import paired, summarize
from benchmarks.tiny_family.report import markdown, plot
from benchmarks.tiny_family.results import Results, read_lines
from sgl_proxythinker.evaluation.statistics import bootstrap, pass_at, sign_test, wilson
from sgl_proxythinker.guidance import GuidanceParams
from sgl_proxythinker.laws import read_law
from sgl_proxythinker.tiny_family.settings import LAWS, SETTINGS, choose

RUN = {"split": "test", "count": 4, "weights": {"base": "0123"}}
CONDITIONS = {name: "?" for name in ("device", "torch", "sglang", "inspect_ai", "commit", "date")}


def rows(right: list[list[int]]) -> list[dict]:
    """Answers to as many problems as lists, each with as many epochs as entries."""
    manner = {"thinks": True, "verifies": False, "backtracks": False, "cut_off": False}
    return [
        {"problem": problem, "epoch": epoch, "kind": "odd" if problem % 2 else "add", "level": 1, "right": one,
         "tokens": 10 + epoch, **manner}
        for problem, answers in enumerate(right)
        for epoch, one in enumerate(answers, 1)
    ]  # fmt: skip


def test_wilson_is_the_published_interval():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize("count, right, k", [(4, 1, 2), (5, 3, 2), (4, 0, 4), (4, 4, 1)])
def test_pass_at_counts_draws_that_hold_a_right_answer(count, right, k):
    draws = list(itertools.combinations([1] * right + [0] * (count - right), k))
    assert pass_at(k, count, right) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_bootstrap_draws_problems():
    low, high = bootstrap([0.0, 1.0] * 200)
    assert 0.44 < low < 0.5 < high < 0.56
    assert bootstrap([1.0] * 5) == (1.0, 1.0)


def test_answers_to_one_problem_are_not_independent():
    clustered = summarize(rows([[1] * 16] * 20 + [[0] * 16] * 20), (1, 16))
    low, high = clustered["interval"]
    assert clustered["accuracy"] == 0.5
    assert high - low > 0.25  # Wilson's of 640 answers is 0.08 wide
    assert clustered["pass_at"]["1"]["value"] == clustered["pass_at"]["16"]["value"] == 0.5


def test_a_folder_goes_on_with_what_is_missing(tmp_path):
    results = Results(tmp_path, RUN)
    results.write(SETTINGS["base"], summarize(rows([[1], [0], [1], [0]])), rows([[1], [0], [1], [0]]))
    with results.lines.open("a") as lines:
        lines.write('{"setting": "expert", "n"')  # the process was killed
    with results.samples.open("a") as samples:
        samples.write('{"setting": "expert", "right": 1}\n')
    again = Results(tmp_path, RUN)
    assert again.finished() == {"base"}
    again.write(SETTINGS["expert"], summarize(rows([[1]])), rows([[1]]))
    assert Results(tmp_path, RUN).finished() == {"base", "expert"}
    assert [line["right"] for line in read_lines(results.samples) if line["setting"] == "base"] == [1, 0, 1, 0]
    assert len(read_lines(results.samples)) == 5


def test_a_folder_holds_one_run(tmp_path):
    Results(tmp_path, RUN)
    with pytest.raises(ValueError, match="another run"):
        Results(tmp_path, {**RUN, "count": 5})


def test_strengths_of_the_settings():
    assert SETTINGS["base"].extra_body()["custom_params"] == {"proxy_alpha": 0.0, "proxy_amateur_alpha": 0.0}
    assert SETTINGS["guided-0.5"].strength == (0.5, 0.5)
    assert SETTINGS["no-amateur-0.5"].strength == (0.5, 0.0)
    cut = SETTINGS["min-p-0.1-at-1-sampled"]
    assert cut.extra_body() == {**SETTINGS["guided-1-sampled"].extra_body(), "min_p": 0.1} and cut.temperature == 1
    assert "custom_params" not in SETTINGS["expert"].extra_body()
    assert not any(setting.sampled for setting in choose(None, sampled=False))
    with pytest.raises(ValueError, match="no setting nonsense"):
        choose(["nonsense"], sampled=False)


@pytest.mark.parametrize("better, worse", [(0, 0), (1, 0), (5, 5), (0, 6), (9, 2), (33, 17)])
def test_the_sign_test_is_the_exact_binomial_one(better, worse):
    wanted = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert sign_test(better, worse) == pytest.approx(wanted)


def test_settings_are_compared_problem_by_problem():
    ours, theirs = (summarize(rows(right)) for right in ([[1], [1], [0], [1]], [[1], [0], [1], [0]]))
    pair = paired(ours["right_of"], theirs["right_of"])
    assert (pair.difference, pair.better, pair.worse, pair.p) == (0.25, 2, 1, 1.0)
    many = summarize(rows([[1] * 16, [0] * 16]))["right_of"]
    assert many == "G0" and paired(many, "F0", answers=16).difference == pytest.approx(1 / 32)
    with pytest.raises(ValueError):
        paired("10", "100")


def test_steered_tokens_are_counted_over_all_answers():
    traced = [row | {"traced": 10, "touched": at, "strengths": at / 2} for at, row in enumerate(rows([[1], [0], [1]]))]
    summary = summarize(traced)
    assert (summary["touched"], summary["strength"]) == (0.1, 0.05)
    assert "touched" not in summarize(rows([[1]]))


@pytest.mark.parametrize("setting", LAWS, ids=lambda setting: setting.name)
def test_a_law_is_asked_for_as_requests_write_it(setting):
    params = GuidanceParams(**setting.extra_body()["custom_params"])
    law = read_law(params.proxy_law) if params.proxy_law else None
    if setting.plausible is None:
        assert params.proxy_trace and (law is not None or params.proxy_clip is not None)
        assert params.proxy_amateur_alpha is None  # not beside most laws
    else:
        assert params.proxy_plausible == setting.plausible and not params.proxy_trace
    assert (params.proxy_alpha is None) == (law is not None and law.schedule is not None)
    assert setting.name not in {other.name for other in choose(None, sampled=True)}
    assert SETTINGS[f"{setting.name}-sampled"].extra_body() == setting.extra_body()


def test_laws_are_told_beside_the_constant(tmp_path):
    results = Results(tmp_path, RUN)
    results.conditions = CONDITIONS
    for name, right in (("base", [[0], [0], [1]]), ("guided-0.5", [[1], [0], [1]]), ("entropy-0.3", [[1], [1], [1]])):
        traced = [row | {"traced": 20, "touched": 1, "strengths": 0.5} for row in rows(right)]
        results.write(SETTINGS[name], summarize(traced if SETTINGS[name].traced else rows(right)), [])
    lines = read_lines(results.lines)
    table = worth.markdown(lines)
    assert "| +33.3 [+0.0, +100.0] | 1, 0; 1 | 100.0 | 11.0 | 5.0 | 0.55 |" in table
    assert [worth.kind_of(line) for line in lines] == ["constant", "constant", "entropy"]
    assert [worth.kind_of(asdict(SETTINGS[name])) for name in ("schedule-down-in-8", "marker-think-to-0")] == [
        "schedule", "marker",
    ]  # fmt: skip
    worth.plot(lines, tmp_path / "worth.png")
    assert (tmp_path / "worth.png").stat().st_size > 10_000


def told(setting: str, split: str, right: list[list[int]], tokens: int = 20) -> dict:
    answers = [row | {"tokens": tokens, "traced": tokens, "touched": 1, "strengths": 0.5} for row in rows(right)]
    return {"setting": setting, **asdict(SETTINGS[setting]), **summarize(answers), "split": split}


def test_laws_are_compared_with_the_constant_that_the_validation_split_prefers():
    """Kills: the best of the test split, of the other way of choosing tokens, of equal ones the costlier, a law."""
    ours, theirs = [[1], [1], [0]], [[1], [0], [0]]
    lines = [
        told("guided-0.5", "validation", theirs), told("guided-1", "validation", ours, tokens=20),
        told("guided-0.75", "validation", ours, tokens=30), told("entropy-0.3", "validation", [[1], [1], [1]]),
        told("plausible-0.1", "validation", [[1], [1], [1]]),
        told("min-p-0.1-at-1-sampled", "validation", [[1, 1], [1, 1]], tokens=10),
        told("guided-0.5", "test", theirs), told("guided-1", "test", [[0], [0], [1]]), told("clip-4", "test", ours),
        told("guided-1.5", "test", [[1], [1], [1]]), told("guided-1.5-sampled", "validation", [[1, 1], [1, 1]]),
        told("guided-0.5-sampled", "validation", [[1, 0], [1, 0]]),
    ]  # fmt: skip
    assert worth.best_constant(lines, sampled=False) == "guided-1"
    assert worth.best_constant(lines, sampled=True) == "guided-1.5"
    assert worth.best_constant(lines[4:9], sampled=False) == "guided-0.5", "the test split chooses nothing"
    greedy, test, sampled = worth.markdown(lines).split("\n\n")[1::2]
    for table in (greedy, test):
        assert "to guided-0.5, points" in table and "to guided-1, points" in table
    assert "| clip-4 | 66.7 [20.8, 93.8] | +33.3 [+0.0, +100.0] | 1, 0; 1 | +33.3 [-100.0, +100.0] | 2, 1; 1 |" in test
    assert "| guided-0.5 | 50.0 [50.0, 50.0] |  |  | -50.0 [-50.0, -50.0] | 0, 2; 0.5 |" in sampled


def test_a_setting_that_was_asked_twice_counts_once_if_it_answered_the_same():
    lines = [told("guided-0.5", split, [[1], [0]]) for split in ("validation", "test", "test")]
    assert worth.once(lines) == lines[:2]
    with pytest.raises(ValueError, match="guided-0.5 was asked twice on the test split"):
        worth.once([*lines, told("guided-0.5", "test", [[0], [1]])])


@pytest.fixture
def lines(tmp_path):
    results = Results(tmp_path, RUN)
    results.conditions = CONDITIONS
    for name in ("guided-0.5", "base", "no-amateur-0.5", "expert"):
        results.write(SETTINGS[name], summarize(rows([[1], [0], [1], [1]])), [])
    results.write(SETTINGS["guided-0.5-sampled"], summarize(rows([[1, 0], [0, 0]]), (1, 2, 4)), [])
    return read_lines(results.lines)


def test_the_table_shows_what_is_there(lines):
    table = markdown(lines)
    assert "| base | 75.0 [30.1, 95.4] | 100.0 | 50.0 | 100.0 | 0.0 | 0.0 | 11.0 |" in table
    assert table.index("| base |") < table.index("| guided-0.5 | 75.0") < table.index("| no-amateur-0.5 |")
    assert "pass@2" in table and "pass@4" not in table


def test_the_plot_is_drawn(lines, tmp_path):
    plot(lines, tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000
