"""Rows of a published data set, from the Hub or from a folder with a copy of it, by Hugging Face's `datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sgl_proxythinker.evaluation.errors import DataError
from sgl_proxythinker.evaluation.questions import Picture


@dataclass(frozen=True)
class Source:
    """Where a data set lies.

    Args:
        place: its name on the Hub, or a folder that a download of it has left.
        revision: commit, tag or branch on the Hub.
    """

    place: str
    revision: str | None = None

    def resolved(self) -> Source:
        """With the commit that its revision names today, so that a manifest says which data was asked."""
        if not self.place or self._is_here():
            return self
        from huggingface_hub import HfApi

        try:
            return replace(self, revision=HfApi().dataset_info(self.place, revision=self.revision, timeout=30).sha)
        except Exception:  # no network, by the classes of whichever library it uses: what a cache holds, if it does
            return self

    def rows(self, config: str | None, split: str) -> Rows:
        """Read a split.

        Raises:
            DataError: it is not there.
        """
        import datasets

        try:
            table = datasets.load_dataset(self.place, config, split=split, revision=self._revision)
        except Exception as problem:  # of the Hub, of a file, of a name: `datasets` has no class for them
            part = f"{config}, {split}" if config else split
            raise DataError(
                f"{self.place} ({part}) can't be read: {problem}. Download it on a machine with the Hub "
                f"(`hf download --repo-type dataset {self.place}`), and say where by --data NAME=FOLDER."
            ) from problem
        pictures = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
        for name in pictures:
            table = table.cast_column(name, datasets.Image(decode=False))
        return Rows(table, pictures)

    @property
    def _revision(self) -> str | None:
        return None if self._is_here() else self.revision

    def _is_here(self) -> bool:
        return os.path.isdir(self.place)

    def describe(self) -> dict[str, str | None]:
        """What a manifest says of it."""
        return {
            "place": Path(self.place).name if self._is_here() else self.place,
            "from": "a folder" if self._is_here() else "the Hub",
            "revision": self._revision,
        }


class Rows:
    """Rows without their pictures: these are read when they are asked for, since they may not fit into the memory."""

    def __init__(self, table: Any, pictures: list[str]):
        self._table, self._pictures = table, pictures
        self._texts = table.remove_columns(pictures)

    def __iter__(self) -> Iterator[Row]:
        for index, values in enumerate(self._texts):
            yield Row(values, {name: partial(self._stored, index, name) for name in self._pictures})

    def _stored(self, index: int, column: str) -> Mapping[str, Any] | None:
        return self._table[index][column]


@dataclass(frozen=True)
class Row:
    """One row: its values by column, and its pictures."""

    values: Mapping[str, Any]
    stored: Mapping[str, Any]  # by column, how what is stored of its picture is read

    def __getitem__(self, column: str) -> Any:
        """A value.

        Raises:
            DataError: there is no such column.
        """
        if column not in self.values:
            raise DataError(f"the data set has no column {column!r}, and has {', '.join(self.values)}")
        return self.values[column]

    def get(self, column: str, default: Any = None) -> Any:
        return self.values.get(column, default)

    def pictures(self, *columns: str) -> tuple[Picture, ...]:
        """Of these columns, in their order, those that hold one."""
        return tuple(Picture(partial(self._bytes, name)) for name in columns if self._has(name))

    def _has(self, column: str) -> bool:
        """Whether the table holds a picture's file. Of a name alone no file is read: it may be any of this machine.

        Raises:
            DataError: it has a name alone.
        """
        read = self.stored.get(column)
        held = read() if read is not None else None
        if held is not None and not held.get("bytes") and held.get("path"):
            raise DataError(f"the data set names the picture {held['path']} and does not hold it")
        return held is not None and bool(held.get("bytes"))

    def _bytes(self, column: str) -> bytes:
        return self.stored[column]()["bytes"]
