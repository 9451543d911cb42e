"""Rows of the published data sets, in small sets of exactly their formats, become the questions that they are."""

from __future__ import annotations

import base64
import io
import shutil
import string

import pytest
from PIL import Image

from published_sets import write_published_sets
from sgl_proxythinker.evaluation.asking.pictures import data_url, size_within
from sgl_proxythinker.evaluation.benchmarks import BENCHMARKS
from sgl_proxythinker.evaluation.benchmarks.listed_choices import choices_in
from sgl_proxythinker.evaluation.benchmarks.rows import Source
from sgl_proxythinker.evaluation.benchmarks.wording import Wording
from sgl_proxythinker.evaluation.errors import DataError, EvaluationError
from sgl_proxythinker.evaluation.presets import DEFAULT, SHIPPED, read_presets
from sgl_proxythinker.evaluation.questions import AnswerKind

PUBLISHED = [name for name, benchmark in BENCHMARKS.items() if benchmark.hub]
PRESETS = read_presets()
AS_STORED = PRESETS[DEFAULT]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_published_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def questions(folders):
    return {name: read(name, folders[name.removesuffix("_mini")]) for name in PUBLISHED}


def read(name, folder, wording=AS_STORED.mathvision):
    return {one.id: one for one in BENCHMARKS[name].questions(Source(str(folder)), wording)}


def every(questions):
    return [one for asked in questions.values() for one in asked.values()]


def test_every_question_can_be_asked_and_graded(questions):
    for one in every(questions):
        assert one.text.strip() and one.answer.strip(), one
        if one.kind == AnswerKind.CHOICE and one.choices:
            assert string.ascii_uppercase.index(one.answer) < len(one.choices), one
        for picture in one.pictures:
            sent = data_url(picture.read(), AS_STORED)
            Image.open(io.BytesIO(base64.b64decode(sent.partition(",")[2]))).load()
    assert {one.kind for one in every(questions)} == set(AnswerKind)


def test_a_picture_has_the_type_of_its_bytes(questions):
    """Kills: a type by the name of the file; data sets have PNG files that are called .jpg."""
    sent = [
        (picture.read(), data_url(picture.read(), AS_STORED)) for one in every(questions) for picture in one.pictures
    ]
    forms = {Image.open(io.BytesIO(data)).format for data, _ in sent}
    assert {"PNG", "JPEG"} <= forms
    for data, url in sent:
        form = Image.open(io.BytesIO(data)).format
        if form in ("PNG", "JPEG"):
            assert url.startswith(f"data:image/{form.lower()};base64,")
            assert base64.b64decode(url.partition(",")[2]) == data


@pytest.mark.parametrize("size", [(2000, 1500), (100, 5000), (30, 20), (5, 900), (640, 480)])
def test_a_presets_limits_hold(size):
    limited = AS_STORED.model_copy(update={"min_pixels": 200_000, "max_pixels": 400_000})
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    sent = Image.open(io.BytesIO(base64.b64decode(data_url(buffer.getvalue(), limited).partition(",")[2])))
    assert sent.width * sent.height <= 400_000
    assert sent.width * sent.height >= 200_000 or min(sent.size) == 28
    if size == (640, 480):
        assert sent.size == size
    else:
        assert not sent.width % 28 and not sent.height % 28
    assert size_within(size, None, None) == size


def test_mathvista_says_what_kind_of_answer_it_has(questions):
    kinds = {one.kind for one in questions["mathvista"].values()}
    assert {AnswerKind.CHOICE, AnswerKind.INTEGER, AnswerKind.DECIMAL, AnswerKind.NUMBERS, AnswerKind.TEXT} <= kinds
    for one in questions["mathvista"].values():
        assert one.text.startswith("Hint:")
        if one.kind == AnswerKind.CHOICE:
            assert one.published_answer == one.choices[string.ascii_uppercase.index(one.answer)]
        if one.kind == AnswerKind.DECIMAL:
            assert one.decimal_places is not None


def test_mathverse_is_asked_in_five_versions(questions):
    versions = [one.groups["version"] for one in questions["mathverse"].values()]
    assert len(set(versions)) == 5 and len(versions) % 5 == 0
    assert all(one.pictures for one in questions["mathverse"].values())


def test_mathvision_is_put_into_a_presets_words(folders, questions):
    for one in questions["mathvision"].values():
        hint, lines = one.text.split("\n", 1)
        assert hint.startswith("Hint: Please answer the question") and lines.startswith("Question: ")
        assert all(f"({letter}) {text}" in lines for letter, text in zip("ABCDEFGH", one.choices, strict=False))
    other = read("mathvision", folders["mathvision"], PRESETS["thinklite-vl"].mathvision)
    assert any("\nOptions:\nA. " in one.text for one in other.values())
    assert set(questions["mathvision_mini"]) < set(questions["mathvision"])


def test_mmmu_pro_is_asked_in_words_and_as_one_picture(questions):
    settings = [one.groups["setting"] for one in questions["mmmu_pro"].values()]
    assert settings.count("standard") == settings.count("vision") > 0
    for one in questions["mmmu_pro"].values():
        assert "<image 1>" not in one.text
        if one.groups["setting"] == "vision":
            assert len(one.pictures) == 1 and not any(choice in one.text for choice in one.choices[:1])
        else:
            assert one.text.count("<image>") == len(one.pictures)
        # The paper's scripts index the column as it is written.
        assert "".join(one.published_choices).startswith("[") and one.published_letters == 5


def test_a_question_without_an_answer_is_left_out(folders, questions):
    import datasets

    rows = datasets.load_dataset(str(folders["r1_onevision"]), split="train")
    without = [str(row["index"]) for row in rows if row["answer"] is None]
    assert without and set(questions["r1_onevision"]) == {str(row["index"]) for row in rows} - set(without)


def test_the_tiny_familys_problems_need_no_download():
    (one, *_), benchmark = read("tiny_family", "").values(), BENCHMARKS["tiny_family"]
    assert benchmark.hub is None and one.kind == AnswerKind.TEXT and len(one.pictures) == 1


def test_choices_are_read_from_a_question():
    assert choices_in("Find x.\nChoices:\nA:2\nB:2√{{3}}\n(C) √{{3}}\nD. none") == ("2", "2√{{3}}", "√{{3}}", "none")
    assert choices_in("Find x. Choices:\nA. one\nC. three") == ()
    assert choices_in("Which?\nChoices: A: J B: N C: W D: Pa") == ("J", "N", "W", "Pa")
    assert choices_in("Which?\nA. J\nB. N") == ("J", "N")
    assert choices_in("Angle A: 60 degrees, angle B: 30 degrees") == ()


def test_templates_leave_latex_as_it_is():
    words = Wording(with_choices="{question}|{choices}", without_choices="{question}", choice="{letter}={text}")
    assert words.text(r"\frac{1}{choices}", [r"\sqrt{text}"]) == r"\frac{1}{choices}|A=\sqrt{text}"


def test_a_data_set_that_is_not_there_says_where_to_get_it(tmp_path):
    with pytest.raises(DataError, match="--data NAME=FOLDER"):
        read("mathvista", tmp_path)


def test_a_data_set_of_another_form_names_the_column(folders, tmp_path):
    shutil.copytree(folders["mathvision"], tmp_path / "other")
    with pytest.raises(DataError, match="no column 'metadata'"):
        list(BENCHMARKS["mathvista"].questions(Source(str(tmp_path / "other")), AS_STORED.mathvision))


@pytest.mark.parametrize(
    "text, said",
    [
        ("a: {suffix: x}", "source"),
        ("a: [", "can't be read"),
        (SHIPPED.read_text().replace("max_tokens: 192", "max_tokens: 192\n  sufix: x"), "sufix"),
        (SHIPPED.read_text().replace("max_tokens: 192", "max_tokens: 192\n  min_pixels: 9\n  max_pixels: 8"), "above"),
    ],
)
def test_a_preset_that_nobody_can_read_is_refused(text, said, tmp_path):
    (tmp_path / "presets.yaml").write_text(text)
    with pytest.raises(EvaluationError, match=said):
        read_presets(tmp_path / "presets.yaml")


def test_presets_name_their_source():
    assert DEFAULT in PRESETS
    assert all(preset.source for preset in PRESETS.values())
