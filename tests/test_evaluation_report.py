"""The report of an evaluation in a real browser: its numbers, its flipped answers, and that it loads nothing.

The screenshots that the tests leave in their temporary folders are for a person's eye.
"""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from PIL import Image, ImageDraw
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from browser import browsing
from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.questions import AnswerKind, Picture, Question
from sgl_proxythinker.evaluation.records import AnswerRecord, Behaviour, BehaviourRecord, Grade, Outcome
from sgl_proxythinker.evaluation.report import write_report
from sgl_proxythinker.evaluation.report.flips import Direction, flips_of
from sgl_proxythinker.evaluation.report.plots import DARK, LIGHT, accuracy_panels, pass_at_panels, svg_url
from sgl_proxythinker.evaluation.report.results import results_of
from sgl_proxythinker.evaluation.run_folder import RunFolder
from sgl_proxythinker.evaluation.summary import RULES, compare_settings, macro_average, summarize

pytestmark = pytest.mark.xdist_group("browser")

PHONE, DESK = (360, 740), (1280, 900)
SIZES = pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])

# What models, data sets and judges may write; none of it may become markup, script, or the end of one.
HOSTILE = (
    "</script><script>window.ran = 1</script>", "<img src=x onerror='window.ran = 1'>", "<!--<script>", "{{ 7 * 7 }}",
    '" onmouseover="window.ran = 1', "&lt;b&gt;", "| # *bold* `code` [a](javascript:1)", "שלום", "\u2028", "x" * 300,
)  # fmt: skip
LAW = "entropy above 2"
# How often each setting is right, as a share, and how many answers it gives to a question of "MathVision".
SETTINGS = {
    "alpha-0": 0.45, "alpha-0.25": 0.55, "alpha-0.5": 0.75, "alpha-1": 0.5, "no-amateur-0.5": 0.5, "no-amateur-1": 0.2,
    LAW: 0.6, HOSTILE[1]: 0.45,
}  # fmt: skip
QUESTIONS = {"MathVista": 60, "MathVision": 24, "MMMU-Pro <vision>": 16}
REPEATS = {"MathVista": 1, "MathVision": 4, "MMMU-Pro <vision>": 1}
WORDS = "We look at the figure again and measure the longer side, which is twice the shorter one. "


def picture_file(form: str, mode: str, size: tuple[int, int]) -> bytes:
    """A drawing with a red circle, as a file."""
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((size[0] // 8, size[1] // 8, size[0] // 2, size[1] * 7 // 8), fill="crimson")
    draw.rectangle((size[0] * 5 // 8, size[1] // 4, size[0] * 7 // 8, size[1] * 3 // 4), fill="royalblue")
    file = io.BytesIO()
    picture.convert(mode).save(file, form)
    return file.getvalue()


PICTURES = {
    "small PNG": picture_file("PNG", "RGB", (240, 160)),
    "CMYK JPEG": picture_file("JPEG", "CMYK", (200, 200)),
    "large PNG with transparency": picture_file("PNG", "RGBA", (1600, 400)),
    "palette GIF": picture_file("GIF", "P", (120, 90)),
    "no picture at all": b"<svg onload='window.ran = 1'></svg>",
}


def question(benchmark: str, number: int) -> Question:
    files = list(PICTURES.values())
    shown = files if number == 0 else [files[number % len(files)]]
    text = f"Question {number}: how many shapes are in the picture?\nHint: answer with a letter."
    return Question(
        benchmark, f"q-{number}", text + (" ".join(HOSTILE) if number == 1 else ""),
        tuple(Picture(lambda held=held: held) for held in shown), AnswerKind.CHOICE, "B", ("one", "two", HOSTILE[0]),
        groups={"subject": ("algebra", "geometry")[number % 2], "level": str(number % 5 + 1)},
    )  # fmt: skip


def records() -> Iterator[AnswerRecord]:
    """Answers as by chance, the same at every run, with every trap."""
    for benchmark, count in QUESTIONS.items():
        for setting, skill in SETTINGS.items():
            chance = random.Random(f"{benchmark}{setting}")
            for number in range(count):
                if setting == LAW and benchmark == "MathVista" and number >= 50:
                    continue  # fewer questions than others
                if setting == HOSTILE[1] and benchmark == "MathVision":
                    continue  # not asked
                for repeat in range(1, REPEATS[benchmark] + 1):
                    right = chance.random() < skill
                    yield answer(benchmark, setting, number, repeat, right, chance)


def answer(benchmark, setting, number, repeat, right, chance) -> AnswerRecord:
    outcome = Outcome.ANSWERED
    if (setting, benchmark, number) in {("alpha-1", "MathVista", 3), ("alpha-1", "MathVista", 4)}:
        outcome = Outcome.FAILED
    elif setting == HOSTILE[1] and benchmark == "MMMU-Pro <vision>":
        outcome = Outcome.FAILED  # all of them
    elif setting == "no-amateur-1" and number % 7 == 0:
        outcome = (Outcome.CUT_OFF, Outcome.EMPTY)[number % 2]
    answered = outcome in (Outcome.ANSWERED, Outcome.CUT_OFF)
    right = right and outcome == Outcome.ANSWERED
    claim = "B" if right else ("A", "")[number % 6 == 5] if outcome == Outcome.ANSWERED else ""
    text = WORDS * chance.randrange(1, 40) + f"So the answer is \\boxed{{{claim}}}."
    if setting == "alpha-0.5":
        text += "\n\n" + "\n".join(HOSTILE)
    return AnswerRecord(
        benchmark=benchmark, question=f"q-{number}", setting=setting, repeat=repeat, outcome=outcome,
        text=text if answered else "", error="HTTP 500" if outcome == Outcome.FAILED else None,
        tokens=len(text) // 4, seconds=len(text) / 200,
        published=Grade(claim=claim, right=right and chance.random() < 0.9), last=Grade(claim=claim, right=right),
    )  # fmt: skip


def behaviours() -> Iterator[BehaviourRecord]:
    for by, often in (("patterns", 1.0), ("judge <Qwen2.5-72B>", 0.5)):
        for setting, skill in SETTINGS.items():
            chance = random.Random(f"{by}{setting}")
            for number in range(30):
                counts = {behaviour: int(chance.random() * 4 * skill * often) for behaviour in Behaviour}
                yield BehaviourRecord(
                    benchmark="MathVista", question=f"q-{number}", setting=setting, repeat=1, by=by, counts=counts
                )


MANIFEST = {
    "run": {
        "preset": {"name": "vl-rethinker", "source": "its scripts", "suffix": HOSTILE[0], "max_tokens": 4096},
        "sampling": {"repeats": 4, "temperature": 0.6, "top_p": 0.95, "seed": 0},
    },
    "data": {
        "MathVista": {"place": "AI4Math/MathVista", "revision": "2b6ad69445fbb5695c9b165475e8decdbeb97747"},
        "MathVision": {"place": "MathLLMs/MathVision", "revision": None},
    },
    "settings": {"alpha-0": {"proxy_alpha": 0.0}, LAW: {"proxy_law": {"kind": "entropy", "above": 2.0}}},
    "sessions": [
        {"date": f"2026-11-{day}T09:15:00+00:00", "model": "m", "commit": "68b3065", "server": {
            "model_path": "Qwen/Qwen2.5-VL-32B-Instruct", "dtype": "bfloat16", "version": "0.5.17", "tp_size": 2,
            "proxy": {"expert": "TIGER-Lab/VL-Rethinker-7B", "amateur": HOSTILE[1]},
        }} for day in (27, 28)
    ],
}  # fmt: skip


def write_run(path, answers) -> RunFolder:
    folder = RunFolder(path)
    for benchmark, count in QUESTIONS.items():
        folder.write_questions(folder.question_record(question(benchmark, number)) for number in range(count))
    # Not by `add`, which waits for the disk after each.
    (path / "answers.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in answers), "utf-8")
    folder.write_manifest(MANIFEST)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> RunFolder:
    folder = write_run(tmp_path_factory.mktemp("run"), records())
    folder.add_behaviours(behaviours())
    missing = folder.questions()[2].pictures[0]
    (folder.pictures / missing).unlink()
    return folder


@pytest.fixture(scope="module")
def written(folder):
    return write_report(folder, "alpha-0")


@pytest.fixture(scope="module")
def results(folder):
    return results_of(folder, "alpha-0")


@pytest.fixture(scope="module")
def summaries(folder):
    """By setting and benchmark, straight from `summary.py`."""
    made = summarize(folder.answers().values(), folder.questions())
    return {(one.setting, one.benchmark): one for one in made}


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture
def opened(window, written):
    """The page on a phone, in light colours; afterwards it must have loaded nothing else and complained of nothing."""
    address = written[0].as_uri()
    window.look_like(*PHONE)
    window.get(address)
    yield window
    assert window.complaints() == []
    assert set(window.requested()) == {address}


def press(window, *keys: str) -> None:
    for key in keys:
        window.switch_to.active_element.send_keys(key)


def choose(window, **filters: str) -> None:
    for name, value in filters.items():
        Select(window.find_element(By.ID, f"by-{name}")).select_by_value(value)


def text_of(window, selector: str) -> str:
    return window.js(f"document.querySelector({selector!r}).textContent").strip()


def position(window) -> str:
    return text_of(window, "#position")


def cells(window, rule: str) -> dict[tuple[str, str], str]:
    """What is shown in each cell of the table of a rule, on one line."""
    shown = window.js(
        f"[...document.querySelectorAll('.by-{rule} .results td')]"
        ".map((td) => [td.dataset.setting, td.dataset.benchmark ?? 'macro', td.textContent])"
    )
    return {(setting, benchmark): " ".join(text.split()) for setting, benchmark, text in shown}


def numbers(summaries, setting: str, benchmark: str, rule: str) -> list[str]:
    """What a reader must be told of a setting on a benchmark, as a percentage of `summary.py`'s shares."""
    one, base = summaries[setting, benchmark], summaries["alpha-0", benchmark]
    share = one.accuracy[rule]
    told = [f"{100 * share.value:.1f}", f"{100 * share.low:.1f}–{100 * share.high:.1f}"]
    if setting != "alpha-0":
        paired = compare_settings(one, base, rule)
        ends = [f"{100 * end:+.1f}".replace("+0.0", "±0.0").replace("-", "−") for end in paired.interval]
        told += [f"{100 * paired.difference:+.1f}".replace("+0.0", "±0.0").replace("-", "−"), " to ".join(ends)]
        told.append("p < 0.001" if paired.p < 0.001 else f"p = {paired.p:.3f}")
    return told


@pytest.mark.parametrize("rule", RULES)
def test_the_table_has_the_numbers_of_the_summaries(opened, summaries, rule):
    """Kills: the other rule's numbers, a gain over all questions instead of the common ones, a shifted column."""
    opened.find_element(By.ID, f"rule-{rule}").click()
    assert opened.find_element(By.CSS_SELECTOR, f".by-{rule} .results").is_displayed()
    assert len([table for table in opened.find_elements(By.CLASS_NAME, "results") if table.is_displayed()]) == 1
    shown = cells(opened, rule)
    for setting, benchmark in summaries:
        for number in numbers(summaries, setting, benchmark, rule):
            assert number in shown[setting, benchmark], (setting, benchmark)
    by_last, by_published = (summaries["alpha-0.5", "MathVista"].accuracy[rule].value for rule in RULES)
    assert by_last != by_published, "else this test could not tell the rules apart"


@pytest.mark.parametrize("rule", RULES)
def test_markdown_has_the_same_numbers(written, summaries, rule):
    text = written[1].read_text("utf-8")
    title = {"last": "last marked answer", "published": "paper's scripts"}[rule]
    table = text.split(f"## Accuracy by the {title}\n\n")[1].split("\n\n")[0].splitlines()
    for setting in SETTINGS:
        [row] = [line for line in table if line.startswith(f"| {escaped(setting)} |")]
        row_cells = dict(zip(QUESTIONS, row.split(" | ")[1:], strict=False))
        for benchmark in QUESTIONS:
            if (setting, benchmark) in summaries:
                for number in numbers(summaries, setting, benchmark, rule):
                    assert number in row_cells[benchmark].replace("*", ""), (setting, benchmark)
        known = [summaries[setting, benchmark] for benchmark in QUESTIONS if (setting, benchmark) in summaries]
        is_complete = len(known) == len(QUESTIONS) and setting != LAW
        average = f"{100 * macro_average(known, rule):.1f}" if is_complete else "not on all benchmarks"
        assert average in row.rsplit(" | ", 1)[1]
    assert "18 requests failed" in text and HOSTILE[1] not in text
    pass_at = summaries["alpha-0.5", "MathVision"].pass_at["last"][4]
    interval = f"({100 * pass_at.low:.1f}–{100 * pass_at.high:.1f})"
    [row] = [
        line for line in text.split("## pass@k")[1].split("## ")[0].splitlines() if line.startswith("| alpha-0.5 |")
    ]
    assert row.endswith(f"{100 * pass_at.value:.1f} {interval} |")
    assert "expert TIGER-Lab/VL-Rethinker-7B" in text


def escaped(text: str) -> str:
    return re.sub(r"([<>])", r"\\\1", text)


@pytest.mark.parametrize("rule", RULES)
def test_the_macro_average_is_of_all_benchmarks_or_not_there(opened, summaries, rule):
    shown = cells(opened, rule)
    base = macro_average([summaries["alpha-0", benchmark] for benchmark in QUESTIONS], rule)
    for setting in set(SETTINGS) - {HOSTILE[1], LAW}:
        average = macro_average([summaries[setting, benchmark] for benchmark in QUESTIONS], rule)
        assert f"{100 * average:.1f} %" in shown[setting, "macro"]
        if setting != "alpha-0":
            assert shown[setting, "macro"].endswith(f"{100 * (average - base):+.1f}".replace("-", "−"))
    assert shown[HOSTILE[1], "macro"] == shown[LAW, "macro"] == "not on all benchmarks", "nor on 50 of 60 questions"


def test_a_difference_is_called_one_only_where_the_paired_test_says_so(opened, summaries):
    """Kills: a verdict by the sign alone, by p alone, and by the interval alone."""
    shown, seen = cells(opened, "last"), set()
    for (setting, benchmark), one in summaries.items():
        if setting == "alpha-0":
            assert not re.search("better|worse|no difference", shown[setting, benchmark])
            continue
        paired = compare_settings(one, summaries["alpha-0", benchmark], "last")
        low, high = paired.interval
        clear = paired.p < 0.05 and (low > 0 or high < 0)
        word = ("better" if paired.difference > 0 else "worse") if clear else "no difference shown"
        assert f"points: {word}" in shown[setting, benchmark]
        seen.add((word, low > 0 or high < 0))
    assert seen == {("better", True), ("worse", True), ("no difference shown", False), ("no difference shown", True)}


def test_what_went_wrong_stands_in_the_table(opened, summaries):
    """Failed requests are also there where nothing was answered and no summary exists."""
    shown = cells(opened, "last")
    cut = summaries["no-amateur-1", "MathVista"]
    assert cut.outcomes[Outcome.EMPTY] and cut.outcomes[Outcome.CUT_OFF] and cut.unmarked
    told = f"{cut.outcomes[Outcome.EMPTY]} empty, {cut.outcomes[Outcome.CUT_OFF]} cut off, {cut.unmarked} unmarked"
    assert shown["no-amateur-1", "MathVista"].endswith(told)
    assert "2 failed" in shown["alpha-1", "MathVista"] and "58 of 60 questions" in shown["alpha-1", "MathVista"]
    assert shown[HOSTILE[1], "MMMU-Pro <vision>"] == "– only 0 of 16 questions 48 missing, 16 failed"
    assert shown[HOSTILE[1], "MathVision"] == "not asked"
    assert "only 50 of 60 questions" in shown[LAW, "MathVista"]
    assert sum("only" in text for text in shown.values()) == 3
    assert "failed" not in shown["alpha-0", "MathVista"]
    warning = text_of(opened, ".warning")
    assert (
        warning.startswith("This run is not finished: 18 requests failed, 1,834 answers missing.")
        and "in no share" in warning
    )


def test_the_head_says_what_was_run(opened):
    head = " ".join(text_of(opened, ".facts").split())
    for told in (
        "base Qwen/Qwen2.5-VL-32B-Instruct", "expert TIGER-Lab/VL-Rethinker-7B", "2026-11-27", "2026-11-28",
        "AI4Math/MathVista@2b6ad69445fb", "name vl-rethinker", "temperature 0.6", "version 0.5.17", '"above": 2.0',
    ):  # fmt: skip
        assert told in head
    kept = text_of(opened, "header pre")
    assert json.loads(kept) == MANIFEST


def test_flips_are_those_of_the_paired_test(results, summaries):
    """Kills: a flip by the published rule, directions swapped, an answer of another question."""
    for pair in flips_of(results, most=10_000):
        after = {benchmark: summaries.get((pair.setting, benchmark)) for benchmark in QUESTIONS}
        paired = {b: compare_settings(one, summaries["alpha-0", b], "last") for b, one in after.items() if one}
        assert pair.left_out == 0
        for benchmark, test in paired.items():
            mine = [flip for flip in pair.shown if flip.benchmark == benchmark]
            gained = [flip for flip in mine if flip.direction == Direction.GAINED]
            assert (len(gained), len(mine) - len(gained)) == (test.better, test.worse)
        for flip in pair.shown:
            assert flip.after.last.right == (flip.direction == Direction.GAINED) != flip.before.last.right
            assert (flip.before.setting, flip.after.setting) == ("alpha-0", pair.setting)
            assert {flip.before.question, flip.after.question} == {flip.question}
            assert {flip.before.benchmark, flip.after.benchmark} == {flip.benchmark}


def test_what_is_left_out_is_said_and_no_benchmark_is_crowded_out(results, opened):
    few = {pair.setting: pair for pair in flips_of(results, most=6)}
    assert {flip.benchmark for flip in few["alpha-0.5"].shown} == set(QUESTIONS)
    assert {flip.direction for flip in few["alpha-0.5"].shown} == set(Direction)
    shown, told = flips_of(results), text_of(opened, ".left-out")
    assert any(pair.left_out for pair in shown) and not all(pair.left_out for pair in shown)
    for pair in shown:
        assert (f"{pair.left_out} of {pair.count} of {pair.setting}" in told) == (pair.left_out > 0)
    assert position(opened) == f"1 of {sum(len(pair.shown) for pair in shown)}"


def test_the_keyboard_steps_through_flipped_answers(opened):
    total = int(position(opened).split()[-1])
    card = opened.find_element(By.ID, "flip")
    opened.execute_script("document.querySelector('#by-direction').focus()")
    press(opened, Keys.TAB)
    assert opened.switch_to.active_element.get_attribute("data-step") == "-1"
    titles = []
    right, left = Keys.ARROW_RIGHT, Keys.ARROW_LEFT
    for key, at in (("j", 2), (right, 3), ("k", 2), (left, 1), (left, total), ("j", 1)):
        press(opened, key)
        assert position(opened) == f"{at} of {total}"
        assert opened.switch_to.active_element == card
        assert opened.js("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus must be seen"
        titles.append(text_of(opened, "#flip-title"))
    assert titles[0] == titles[2] and len(set(titles)) > 2
    assert card.get_attribute("aria-labelledby") == "flip-title"
    opened.find_element(By.CSS_SELECTOR, "[data-step='1']").click()
    assert position(opened) == f"2 of {total}"


def test_letters_elsewhere_step_through_nothing(opened):
    """Kills: keys of the whole document, and those of a select."""
    opened.execute_script("document.querySelector('#rule-last').focus()")
    press(opened, "j")
    assert position(opened).startswith("1 of ")
    opened.execute_script("document.querySelector('#by-benchmark').focus()")
    press(opened, "k")
    assert position(opened).startswith("1 of ")


def test_filters_leave_what_they_say(opened, results):
    shown = [flip for pair in flips_of(results) for flip in pair.shown]
    held: dict[str, str] = {}
    for filters in (
        {"benchmark": "MathVision"}, {"benchmark": "MMMU-Pro <vision>", "setting": "no-amateur-1", "direction": "lost"},
        {"benchmark": "", "setting": "alpha-0.5", "direction": "gained"}, {"setting": HOSTILE[1], "direction": ""},
    ):  # fmt: skip
        choose(opened, **filters)
        held |= filters
        left = [flip for flip in shown if all(value in ("", getattr(flip, name)) for name, value in held.items())]
        assert 0 < len(left) < len(shown) and position(opened) == f"1 of {len(left)}"
        flip = left[0]
        assert text_of(opened, "#flip-title") == f"{flip.benchmark} {flip.question}"
        assert text_of(opened, "#flip-direction").endswith(f"{flip.direction} under {flip.setting}")
    choose(opened, benchmark="MathVision")
    assert position(opened) == "None of these flipped." and not opened.find_element(By.ID, "flip").is_displayed()


def show_question(window, results, benchmark: str, name: str, setting: str) -> None:
    """Step to a flipped question."""
    choose(window, benchmark=benchmark, setting=setting)
    shown = [flip for pair in flips_of(results) if pair.setting == setting for flip in pair.shown]
    names = [flip.question for flip in shown if flip.benchmark == benchmark]
    for _ in range(names.index(name)):
        window.find_element(By.CSS_SELECTOR, "[data-step='1']").click()


def test_a_flip_shows_both_answers_in_full(opened, results):
    flip = flips_of(results)[1].shown[0]
    show_question(opened, results, flip.benchmark, flip.question, flip.setting)
    record = results.questions[flip.benchmark, flip.question]
    assert opened.js("document.querySelector('#flip-text').textContent") == record.text
    choices = opened.js("[...document.querySelectorAll('#flip-choices li')].map((li) => li.textContent)")
    assert choices == list(record.choices)
    assert text_of(opened, "#flip-answer") == record.answer
    texts = opened.js("[...document.querySelectorAll('#flip-answers [data-slot=text]')].map((p) => p.textContent)")
    assert texts == [flip.before.text, flip.after.text]
    boxes = opened.find_elements(By.CSS_SELECTOR, "#flip-answers .answer")
    for box, shown in zip(boxes, (flip.before, flip.after), strict=True):
        assert f"{shown.setting} {'✓ right' if shown.last.right else '✗ wrong'}" in box.text
        for rule in RULES:
            grade = getattr(shown, rule)
            said = f"{grade.claim or 'nothing'} ({'right' if grade.right else 'wrong'})"
            assert box.find_element(By.CSS_SELECTOR, f"[data-slot={rule}]").text == said


def test_a_long_text_is_folded_and_unfolds(opened, results):
    long = next(f for f in flips_of(results)[1].shown if len(f.before.text) < 500 < 3000 < len(f.after.text))
    show_question(opened, results, long.benchmark, long.question, long.setting)
    short, folded = opened.find_elements(By.CSS_SELECTOR, "#flip-answers .answer")
    assert not short.find_element(By.CLASS_NAME, "unfold").is_displayed()
    text = folded.find_element(By.CSS_SELECTOR, "[data-slot=text]")
    button = folded.find_element(By.CLASS_NAME, "unfold")
    height = text.size["height"]
    assert button.get_attribute("aria-expanded") == "false" and f"{len(long.after.text):,} characters" in button.text
    opened.execute_script("arguments[0].click()", button)
    assert text.size["height"] > height and button.get_attribute("aria-expanded") == "true"
    opened.execute_script("arguments[0].click()", button)
    assert text.size["height"] == height


def test_pictures_are_what_their_bytes_are(opened, results, folder):
    """CMYK as every browser shows it, large ones small, and a sentence where there is none to show."""
    data = json.loads(opened.js("document.getElementById('flip-data').textContent"))
    by_file = {name: data["pictures"].get(Picture.digest_of(held)) for name, held in PICTURES.items()}
    missing = "large PNG with transparency"
    kinds = {name: picture and (picture["url"] or "").split(";")[0] for name, picture in by_file.items()}
    assert kinds == {
        "small PNG": "data:image/png", "CMYK JPEG": "data:image/webp", missing: "", "palette GIF": "data:image/gif",
        "no picture at all": "",
    }  # fmt: skip
    assert "no such file" in by_file[missing]["problem"]
    assert "no readable picture" in by_file["no picture at all"]["problem"]
    sizes = opened.execute_async_script(
        "const [urls, done] = arguments; Promise.all(urls.map(async (url) => { const i = new Image(); i.src = url;"
        "await i.decode(); return [i.naturalWidth, i.naturalHeight]; })).then(done)",
        [picture["url"] for picture in by_file.values() if picture["url"]],
    )
    assert sizes == [[240, 160], [200, 200], [120, 90]]
    assert len(data["pictures"]) == len(PICTURES), "each once, and none that no flipped question shows"


def test_what_was_written_by_others_stays_text(opened, results):
    """Markup is shown, not obeyed: in questions, choices, answers, names, the manifest, and the data of the script."""
    show_hostile_flip(opened, results)
    assert opened.js("document.scripts.length") == 2, "the data, and the page's own"
    assert opened.js("document.querySelectorAll('[onerror], [onmouseover], [onload], b, svg script').length") == 0
    assert opened.js("document.querySelectorAll('img:not([src^=\"data:image/\"])').length") == 0
    assert opened.js("typeof window.ran") == "undefined"
    assert HOSTILE[1] in text_of(opened, ".results"), "a setting's name"


def show_hostile_flip(window, results) -> None:
    flip = next(flip for flip in flips_of(results)[1].shown if flip.after.text.endswith("\n".join(HOSTILE)))
    show_question(window, results, flip.benchmark, flip.question, flip.setting)
    shown = window.js("document.querySelectorAll('#flip-answers [data-slot=text]')[1].textContent")
    assert shown == flip.after.text


def test_its_policy_would_stop_what_got_through(opened):
    """Kills: a policy that lets inline scripts run or anything be fetched."""
    opened.execute_script(
        "const s = document.createElement('script'); s.textContent = 'ran = 1'; document.body.append(s);"
        "fetch('https://example.org/').catch(() => {});"
    )
    assert opened.js("typeof window.ran") == "undefined"
    complaints = opened.complaints()
    assert len(complaints) >= 2 and all("Content Security Policy" in one for one in complaints)
    policy = opened.js("document.querySelector('meta[http-equiv=Content-Security-Policy]').content").split("; ")
    assert policy[:2] == ["default-src 'none'", "img-src data:"] and not any("unsafe" in rule for rule in policy)


def open_everything(window) -> None:
    window.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")


@SIZES
def test_nothing_runs_over_the_edge(opened, results, size):
    """Kills: a long word in an answer, a table outside its own box, what is hidden but has a place."""
    opened.look_like(*size)
    open_everything(opened)
    show_hostile_flip(opened, results)
    assert opened.js("document.documentElement.scrollWidth") <= size[0]
    over = opened.js(
        "[...document.querySelectorAll('body *')].filter((e) => !e.closest('.scrolling, nav, .skip') &&"
        " e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert over == []
    boxes = opened.js("[...document.querySelectorAll('.scrolling')].map((box) => getComputedStyle(box).overflowX)")
    assert len(boxes) > 5 and set(boxes) == {"auto"}
    steps = "[...document.querySelectorAll('button, select, .rule label')].filter((e) => e.offsetParent)"
    assert min(opened.js(f"{steps}.map((e) => e.getBoundingClientRect().height)")) >= 44, "for a finger"


CONTRASTS = r"""(() => {
  const channel = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.match(/\d+/g).map(Number).map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const painted = (e) => { const c = getComputedStyle(e).backgroundColor;
    return c === "rgba(0, 0, 0, 0)" ? painted(e.parentElement) : c; };
  const ratio = (e) => {
    const [a, b] = [luminance(getComputedStyle(e).color), luminance(painted(e))].sort((x, y) => x - y);
    return (b + 0.05) / (a + 0.05); };
  const written = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && written(e))
    .map((e) => [`${e.tagName}.${e.className}: ${e.textContent.slice(0, 30)}`, ratio(e)]);
})()"""


@SCHEMES
def test_every_text_stands_out_from_what_is_behind_it(opened, scheme):
    """At least 4.5 to 1, as WCAG asks of text; the plots' colours are those of their legends."""
    opened.look_like(*PHONE, scheme=scheme)
    open_everything(opened)
    contrasts = opened.js(CONTRASTS)
    assert len(contrasts) > 300
    assert [one for one in contrasts if one[1] < 4.5] == []
    theme = {"light": LIGHT, "dark": DARK}[scheme]
    root = "getComputedStyle(document.documentElement).getPropertyValue"
    assert [opened.js(f"{root}('--curve{place}')") for place in range(len(theme.curves))] == list(theme.curves)
    assert [opened.js(f"{root}('--{name}')") for name in ("ink", "quiet", "rule")] == list(theme[:3])


def test_a_dark_room_gets_a_dark_page(opened):
    def lightness() -> float:
        painted = opened.js("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", painted))) / 3

    def plot() -> str:
        return opened.js("document.querySelector('.panels img').currentSrc")

    assert lightness() > 230
    by_day = plot()
    opened.look_like(*PHONE, scheme="dark")
    assert lightness() < 40
    assert plot() != by_day


def test_it_says_what_it_is_to_those_who_do_not_see_it(opened):
    for selector, role in (
        ("body > header", "banner"), ("nav", "navigation"), ("main", "main"), ("#table", "region"),
        (".results", "table"), ("#rule-last", "radio"), ("#by-benchmark", "combobox"), ("#flip", "article"),
        ("#position", "status"), (".warning", "note"), (".by-last.scrolling", "region"),
    ):  # fmt: skip
        assert opened.find_element(By.CSS_SELECTOR, selector).aria_role == role, selector
    for selector in ("nav", "#table", ".by-last.scrolling", "#rule-last", "#by-benchmark", "#flip", ".results"):
        assert opened.find_element(By.CSS_SELECTOR, selector).accessible_name, selector
    assert opened.js("[...document.querySelectorAll('table')].every((table) => table.caption?.textContent)")
    assert opened.js("[...document.querySelectorAll('th')].every((th) => ['row', 'col'].includes(th.scope))")
    alts = opened.js("[...document.querySelectorAll('img')].map((image) => image.alt)")
    assert all(alts) and "MathVista over alpha. with amateur: 35.0 % at 0, 50.0 % at 0.25" in "".join(alts)
    levels = opened.js("[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1 and all(deeper - level <= 1 for level, deeper in zip(levels, levels[1:], strict=False))
    assert opened.js("document.documentElement.lang") == "en"


def test_plots_show_the_numbers_of_the_summaries(results, summaries):
    """Kills: a curve without the amateur that does not begin at the base, a law on a curve, the other rule."""
    for rule in RULES:
        *panels, average = accuracy_panels(results, rule)
        assert [panel.title for panel in panels] == list(QUESTIONS) and average.title == "Macro average"
        for panel in panels:
            shown = {curve.name: dict(curve.points) for curve in panel.curves}
            for name, prefix in (("with amateur", "alpha-"), ("without amateur", "no-amateur-")):
                own = {setting for setting in SETTINGS if setting.startswith(prefix)} | {"alpha-0"}
                known = {float(setting.rpartition("-")[2]): summaries[setting, panel.title] for setting in own}
                assert shown[name] == {alpha: one.accuracy[rule] for alpha, one in known.items()}
        [panel] = pass_at_panels(results, rule)
        assert panel.title == "MathVision", "the only one with several answers to a question"
        for curve in panel.curves:
            shares = summaries[curve.name, "MathVision"].pass_at[rule]
            assert dict(curve.points) == {k: shares[k] for k in (1, 2, 4)}
        assert {curve.name for curve in panel.curves} == set(SETTINGS) - {HOSTILE[1]}
        assert len({(curve.colour, curve.mark) for curve in panel.curves}) == len(panel.curves), "told apart"
        assert svg_url(panel, LIGHT) == svg_url(panel, LIGHT) != svg_url(panel, DARK)


def test_plots_lie_beside_the_page(written):
    assert [path.name for path in written] == ["report.html", "report.md", "accuracy.png", "pass_at_k.png"]
    for path in written[2:]:
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG" and min(picture.size) > 300
        assert f"]({path.name})" in written[1].read_text("utf-8")


def test_behaviours_stand_side_by_side(opened, results):
    opened.look_like(*DESK)
    tables = opened.find_elements(By.CSS_SELECTOR, ".behaviours")
    captions = [table.find_element(By.TAG_NAME, "caption").text for table in tables]
    assert captions == ["counted by patterns", "counted by judge <Qwen2.5-72B>"]
    left, right = (table.rect for table in tables)
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    for summary in results.behaviours:
        rows = tables[summary.by != "patterns"].find_elements(By.TAG_NAME, "tr")
        [shown] = [row.text for row in rows if row.text.startswith(f"{summary.setting}\n")]
        counts = " ".join(f"{each.value:.2f} {each.low:.2f}–{each.high:.2f}" for each in summary.counts.values())
        assert " ".join(shown.split()) == f"{summary.setting} {summary.answers} answers {counts}"


def test_groups_are_there_when_they_are_opened(opened, summaries):
    groups = opened.find_elements(By.CSS_SELECTOR, "#groups details")
    assert len(groups) == 2 * len(QUESTIONS) and not any(group.get_attribute("open") for group in groups)
    opened.execute_script("arguments[0].open = true", groups[0])
    text = " ".join(groups[0].text.split())
    for value, share in summaries["alpha-0.5", "MathVista"].groups["subject"].items():
        assert f"{value} 30 " in text, "of how many questions"
        assert f"{100 * share.value:.1f} {100 * share.low:.1f}–{100 * share.high:.1f}" in text


def test_tokens_and_seconds_are_those_of_the_summaries(opened, summaries):
    rows = opened.find_elements(By.CSS_SELECTOR, "#cost tbody tr")
    shown = {row.find_element(By.TAG_NAME, "th").text: row.find_elements(By.TAG_NAME, "td") for row in rows}
    for setting in SETTINGS:
        for cell, benchmark in zip(shown[setting], QUESTIONS, strict=True):
            one = summaries.get((setting, benchmark))
            assert cell.text == (f"{one.tokens:,.0f} {one.seconds:,.1f} s" if one else "–")


def test_one_answer_to_each_question_makes_no_pass_at_k(window, tmp_path):
    """Nor does a run without behaviours, manifest or failures show a part for them."""
    few = (one for one in records() if one.repeat == 1 and one.setting in ("alpha-0", "alpha-1"))
    folder = write_run(tmp_path, (one for one in few if one.outcome != Outcome.FAILED))
    (tmp_path / "manifest.json").unlink()
    page, _, *plots = write_report(folder, "alpha-1")
    assert [plot.name for plot in plots] == ["accuracy.png"]
    window.look_like(*PHONE)
    window.get(page.as_uri())
    for absent in ("#pass-at-k", "#behaviours", ".facts"):
        assert window.find_elements(By.CSS_SELECTOR, absent) == [], absent
    assert text_of(window, ".warning").startswith("This run is not finished: 2 answers missing.")
    assert text_of(window, ".results tbody th").startswith("alpha-1"), "the baseline stands first"
    assert "one answer to each question" in text_of(window, ".lead")
    assert window.complaints() == []
    assert set(window.requested()) == {page.as_uri()}


def test_a_folder_without_its_questions_still_has_numbers(tmp_path):
    folder = write_run(tmp_path, (one for one in records() if one.setting in ("alpha-0", "alpha-1")))
    (tmp_path / "questions.jsonl").unlink()
    page = write_report(folder, "alpha-0")[0].read_text("utf-8")
    assert "folder has no such question" in page
    assert "60 questions" in page, "as many as were answered"


def test_what_can_not_be_reported_is_refused_with_what_to_do(folder, tmp_path):
    with pytest.raises(EvaluationError, match="under the baseline alpha-7, but under alpha-0, .*name one of these"):
        write_report(folder, "alpha-7")
    with pytest.raises(EvaluationError, match="no answer to report: nothing was asked yet"):
        write_report(RunFolder(tmp_path / "empty"), "alpha-0")
    failed = write_run(tmp_path / "failed", (one for one in records() if one.outcome == Outcome.FAILED))
    with pytest.raises(EvaluationError, match="no answer to report: all 18 requests failed"):
        write_report(failed, "alpha-0")


# Beside another run


BASE_ON_VISTA = "alpha-0", "MathVista"


def other_run(path, name="expert", **changed) -> RunFolder:
    """Of the expert alone, which was asked with words of its own, and more than the first run."""
    chance = random.Random("expert")
    folder = RunFolder(path)
    asked = {benchmark: count + 5 for benchmark, count in QUESTIONS.items() if benchmark != "MathVision"}
    for benchmark, count in asked.items():
        named = (question(benchmark, number) for number in range(count))
        worded = (replace(one, text=f"{one.text}\nThink first.", **changed) for one in named)
        folder.write_questions(map(folder.question_record, worded))
    for benchmark, count in asked.items():
        for number in range(count):
            folder.add(answer(benchmark, name, number, 1, chance.random() < 0.5, chance))
    manifest = {**MANIFEST, "sessions": [{"date": "2026-11-29", "server": {"model_path": "VL-Rethinker-7B"}}]}
    folder.write_manifest(manifest)
    return folder


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    return other_run(tmp_path_factory.mktemp("expert"))


def test_another_servers_run_is_a_row_and_changes_no_other(folder, results, beside):
    joined = results_of(folder, "alpha-0", [beside])
    assert set(joined.settings) == {*results.settings, "expert"}
    assert {key: cell for key, cell in joined.cells.items() if key[0] != "expert"} == results.cells
    cell = joined.cells["expert", "MathVista"]
    assert cell.questions == 60, "those that the first run has not are left out"
    base = {one.question: one.last.right for one in results.answers if (one.setting, one.benchmark) == BASE_ON_VISTA}
    gained = sum(
        one.last.right - base[one.question] for one in beside.answers().values()
        if one.benchmark == "MathVista" and one.question in base
    )  # fmt: skip
    assert cell.against_baseline["last"].difference == pytest.approx(gained / 60)
    assert ("expert", "MathVision") not in joined.cells and joined.macro("expert", "last") is None


def test_the_page_says_whose_row_it_is(window, folder, beside, tmp_path):
    page, markdown, *_ = write_report(folder, "alpha-0", [beside])
    try:
        window.look_like(*DESK)
        window.get(page.as_uri())
        facts = text_of(window, ".facts")
        assert "VL-Rethinker-7B" in facts.split("expert\n")[-1]
        assert "expert" in [
            row.text.split("\n")[0] for row in window.find_elements(By.CSS_SELECTOR, ".results tbody th")
        ]
        assert "\n- expert: base VL-Rethinker-7B" in markdown.read_text("utf-8")
        assert window.complaints() == []
    finally:
        write_report(folder, "alpha-0")  # what other tests look at


def test_another_run_may_be_the_baseline(folder, beside):
    joined = results_of(folder, "expert", [beside])
    assert joined.settings[0] == "expert" and joined.cells["alpha-0.5", "MathVista"].against_baseline


def test_another_servers_strengths_are_no_points_of_this_ones_curve(folder, tmp_path):
    other = other_run(tmp_path, name="alpha-0.75")
    of_one, of_both = results_of(folder, "alpha-0"), results_of(folder, "alpha-0", [other])
    assert of_both.settings == [*of_one.settings, "alpha-0.75"]
    assert accuracy_panels(of_both, "last") == accuracy_panels(of_one, "last")
    assert of_both.unfinished == of_one.unfinished


def test_benchmarks_that_the_first_run_has_not_begun_are_left_out(beside, tmp_path):
    begun = write_run(tmp_path, (one for one in records() if one.benchmark != "MMMU-Pro <vision>"))
    assert results_of(begun, "alpha-0", [beside]).benchmarks == ["MathVista", "MathVision"]


def test_runs_that_do_not_compare_are_refused(folder, beside, tmp_path):
    again = other_run(tmp_path / "again")
    with pytest.raises(EvaluationError, match="both have answers under expert: a row is of one server. Ask one"):
        results_of(folder, "alpha-0", [beside, again])
    for twice in ([beside, beside], [folder]):
        with pytest.raises(EvaluationError, match="it is in this report already"):
            results_of(folder, "alpha-0", twice)
    other = other_run(tmp_path / "revised", answer="A")
    with pytest.raises(EvaluationError, match="question q-0 of MathVista in .* is not that of the first run"):
        results_of(folder, "alpha-0", [other])
    manifest = again.manifest()
    for changed, said in (
        ({"sampling": {"temperature": 0.0, "repeats": 1}}, "were drawn with .*'repeats': 4.* no table compares them"),
        ({"preset": {"name": "vl-rethinker", "max_pixels": 100_352}}, "within .*None.* with .*100352"),
    ):
        again.write_manifest({**manifest, "run": manifest["run"] | changed})
        with pytest.raises(EvaluationError, match=said):
            results_of(folder, "alpha-0", [again])
    said = manifest["run"]["sampling"] | {"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0}
    again.write_manifest({**manifest, "run": manifest["run"] | {"sampling": said}})
    with pytest.raises(EvaluationError, match="were drawn with .* with .*'repetition_penalty': 1.0.* no table"):
        results_of(folder, "alpha-0", [again])
    again.write_manifest({**manifest, "data": {"MathVista": {"revision": "another"}}})
    with pytest.raises(EvaluationError, match="asked revision another of MathVista"):
        results_of(folder, "alpha-0", [again])
    with pytest.raises(EvaluationError, match="has no answer to a question of"):
        results_of(folder, "alpha-0", [write_run(tmp_path / "nothing asked", [])])


def test_what_only_sglang_is_told_is_no_difference_to_another_server(folder, tmp_path):
    """Kills: no row at all of a server that is not SGLang."""
    other, manifest = other_run(tmp_path), folder.manifest()
    other.write_manifest({**other.manifest(), "sessions": [{"date": "2026-11-29", "model": "m", "server": {}}]})
    said = manifest["run"]["sampling"] | {"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0}
    folder.write_manifest({**manifest, "run": manifest["run"] | {"sampling": said}})
    try:
        assert "expert" in results_of(folder, "alpha-0", [other]).settings
    finally:
        folder.write_manifest(manifest)


@SCHEMES
@SIZES
def test_it_can_be_looked_at(opened, size, scheme, tmp_path):
    """Saves what the page looks like at its table, and with a flipped answer."""
    opened.look_like(*size, scheme=scheme)
    for name, part in (("table", "#table"), ("flips", "#browser")):
        opened.execute_script("document.querySelector(arguments[0]).scrollIntoView()", part)
        path = tmp_path / f"{name}-{size[0]}-{scheme}.png"
        opened.save_screenshot(str(path))
        assert path.stat().st_size > 20_000
