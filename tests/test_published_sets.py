"""The small copies of the benchmarks are what they are said to be: files, columns, types, and what is difficult."""

from __future__ import annotations

import ast
import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from published_sets import R1_ONEVISION, write_published_sets

_PICTURE = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
_TEXT, _TEXTS = pyarrow.string(), pyarrow.list_(pyarrow.string())
_MATHVERSE = {
    "sample_index": _TEXT,
    "problem_index": _TEXT,
    "problem_version": _TEXT,
    "question": _TEXT,
    "image": _PICTURE,
    "answer": _TEXT,
    "question_type": _TEXT,
    "metadata": pyarrow.struct({name: _TEXT for name in ("split", "source", "subject", "subfield")}),
    "query_wo": _TEXT,
    "query_cot": _TEXT,
    "question_for_eval": _TEXT,
}
_STANDARD = {
    "id": _TEXT,
    "question": _TEXT,
    "options": _TEXT,
    "explanation": _TEXT,
    **{f"image_{number}": _PICTURE for number in range(1, 8)},
    "img_type": _TEXT,
    "answer": _TEXT,
    "topic_difficulty": _TEXT,
    "subject": _TEXT,
}

# Written out here a second time: a column that is renamed in the writer by mistake is found.
COLUMNS: dict[tuple[str, str, str], dict[str, pyarrow.DataType]] = {
    **{
        ("mathvista", "default", split): {
            "pid": _TEXT,
            "question": _TEXT,
            "image": _TEXT,
            "decoded_image": _PICTURE,
            "choices": _TEXTS,
            "unit": _TEXT,
            "precision": pyarrow.float64(),
            "answer": _TEXT,
            "question_type": _TEXT,
            "answer_type": _TEXT,
            "metadata": pyarrow.struct(
                {
                    "category": _TEXT,
                    "context": _TEXT,
                    "grade": _TEXT,
                    "img_height": pyarrow.int64(),
                    "img_width": pyarrow.int64(),
                    "language": _TEXT,
                    "skills": _TEXTS,
                    "source": _TEXT,
                    "split": _TEXT,
                    "task": _TEXT,
                }
            ),
            "query": _TEXT,
        }
        for split in ("testmini", "test")
    },
    ("mathverse", "testmini", "testmini"): _MATHVERSE,
    ("mathverse", "testmini_text_only", "testmini_text_only"): _MATHVERSE | {"image": _TEXT},
    **{
        ("mathvision", "default", split): {
            "id": _TEXT,
            "question": _TEXT,
            "options": _TEXTS,
            "image": _TEXT,
            "decoded_image": _PICTURE,
            "answer": _TEXT,
            "solution": _TEXT,
            "level": pyarrow.int64(),
            "subject": _TEXT,
        }
        for split in ("test", "testmini")
    },
    ("mmmu_pro", "standard (10 options)", "test"): _STANDARD,
    ("mmmu_pro", "standard (4 options)", "test"): _STANDARD,
    ("mmmu_pro", "vision", "test"): {
        "id": _TEXT,
        "image": _PICTURE,
        "options": _TEXT,
        "answer": _TEXT,
        "subject": _TEXT,
    },
}

EVERY_SPLIT = pytest.mark.parametrize(("name", "config", "split"), list(COLUMNS))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_published_sets(tmp_path_factory.mktemp("hub"))


@EVERY_SPLIT
def test_a_split_has_the_published_columns(places: dict[str, Path], name: str, config: str, split: str) -> None:
    table = _table(places[name], config, split)
    assert {field.name: field.type for field in table.schema} == COLUMNS[name, config, split]


@EVERY_SPLIT
def test_a_card_describes_the_files_beside_it(places: dict[str, Path], name: str, config: str, split: str) -> None:
    described = _card(places[name])["dataset_info"]
    if isinstance(described, list):
        described = next(one for one in described if one["config_name"] == config)
    table = _table(places[name], config, split)
    assert [column["name"] for column in described["features"]] == table.column_names
    counts = {one["name"]: one["num_examples"] for one in described["splits"]}
    assert counts[split] == table.num_rows


@EVERY_SPLIT
def test_pictures_are_said_to_be_pictures(places: dict[str, Path], name: str, config: str, split: str) -> None:
    """`datasets` reads this in the file; without it a picture is two columns of bytes and a name."""
    table = _table(places[name], config, split)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    columns = {field.name for field in table.schema if field.type == _PICTURE}
    assert {column for column, feature in features.items() if feature.get("_type") == "Image"} == columns


@EVERY_SPLIT
def test_every_picture_can_be_opened(places: dict[str, Path], name: str, config: str, split: str) -> None:
    for picture in _pictures(_table(places[name], config, split)):
        Image.open(io.BytesIO(picture["bytes"])).load()


@EVERY_SPLIT
def test_the_hubs_library_loads_it(places: dict[str, Path], name: str, config: str, split: str, tmp_path: Path) -> None:
    import datasets

    wanted = None if config == "default" else config
    loaded = datasets.load_dataset(str(places[name]), wanted, split=split, cache_dir=str(tmp_path))
    assert loaded.num_rows == _table(places[name], config, split).num_rows
    assert list(loaded.features) == list(COLUMNS[name, config, split])


def test_the_hubs_library_loads_a_tsv(places: dict[str, Path], tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(places["r1_onevision"]), split="train", cache_dir=str(tmp_path))
    assert tuple(loaded.features) == R1_ONEVISION
    assert loaded.features["index"].dtype == "int64"
    assert sum(answer is None for answer in loaded["answer"]) == 1
    assert "042" in loaded["answer"], "a column that was read as numbers would have lost the zero"


def test_fields_of_the_tsv_survive_tabs_quotes_and_line_breaks(places: dict[str, Path]) -> None:
    with (places["r1_onevision"] / "r1-onevision.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [int(row["index"]) for row in rows] == list(range(len(rows)))
    table = next(row["question"] for row in rows if "Read the table" in row["question"])
    assert 'a\tb\n"1"\t2\n\n' in table
    for row in rows:
        if row["image"]:
            Image.open(io.BytesIO(base64.b64decode(row["image"], validate=True))).load()


def test_every_set_has_enough_questions(places: dict[str, Path]) -> None:
    for (name, config, split), _ in COLUMNS.items():
        if (name, split) in {("mathvista", "testmini"), ("mathverse", "testmini"), ("mathvision", "test")}:
            assert 10 <= _table(places[name], config, split).num_rows <= 30


def test_there_are_pictures_of_every_difficult_kind(places: dict[str, Path]) -> None:
    held = [picture for key in COLUMNS for picture in _pictures(_table(places[key[0]], *key[1:]))]
    opened = [(Image.open(io.BytesIO(picture["bytes"])), picture["path"] or "") for picture in held]
    assert any(picture.format == "PNG" and path.endswith(".jpg") for picture, path in opened)
    assert any(picture.format == "JPEG" and picture.mode == "CMYK" for picture, _ in opened)
    assert any(picture.mode == "P" and "transparency" in picture.info for picture, _ in opened)
    assert any(picture.getexif().get(0x0112) == 6 for picture, _ in opened)
    assert any(picture.mode == "I;16" for picture, _ in opened)
    assert any(max(picture.size) < 10 for picture, _ in opened)
    assert any(picture.width >= 100 * picture.height for picture, _ in opened)
    assert any(path == "" for _, path in opened)


def test_choices_are_written_as_each_set_writes_them(places: dict[str, Path]) -> None:
    vista = _table(places["mathvista"], "default", "testmini").to_pylist()
    assert {row["choices"] is None for row in vista if row["question_type"] == "free_form"} == {True}
    assert all(row["answer"] in row["choices"] for row in vista if row["question_type"] == "multi_choice")
    vision = _table(places["mathvision"], "default", "test").to_pylist()
    assert any(row["options"] == [] for row in vision), "no choices are an empty list there"
    for config in ("standard (10 options)", "standard (4 options)", "vision"):
        for row in _table(places["mmmu_pro"], config, "test").to_pylist():
            choices = ast.literal_eval(row["options"])
            assert isinstance(choices, list)
            assert "ABCDEFGHIJ".index(row["answer"]) < len(choices)


def test_a_problem_of_mathverse_is_there_in_five_versions(places: dict[str, Path]) -> None:
    rows = _table(places["mathverse"], "testmini", "testmini").to_pylist()
    versions: dict[str, set[str]] = {}
    for row in rows:
        versions.setdefault(row["problem_index"], set()).add(row["problem_version"])
        assert (row["question"] == "") == (row["problem_version"] == "Vision Only")
    assert {len(found) for found in versions.values()} == {5}


def test_what_is_written_is_the_same_every_time(places: dict[str, Path], tmp_path: Path) -> None:
    again = write_published_sets(tmp_path)
    for name, folder in places.items():
        for file in folder.rglob("*"):
            if file.is_file():
                assert (again[name] / file.relative_to(folder)).read_bytes() == file.read_bytes()


def _card(folder: Path) -> dict[str, Any]:
    _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head)


def _table(folder: Path, config: str, split: str) -> pyarrow.Table:
    """A split, of the files that the card names."""
    configs = {one["config_name"]: one["data_files"] for one in _card(folder)["configs"]}
    path = next(one["path"] for one in configs[config] if one["split"] == split)
    files = sorted(folder.glob(path))
    assert files, f"the card names {path}, and there is none"
    return pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in files])


def _pictures(table: pyarrow.Table) -> list[dict[str, Any]]:
    columns = [field.name for field in table.schema if field.type == _PICTURE]
    return [row[name] for row in table.select(columns).to_pylist() for name in columns if row[name] is not None]
