"""The benchmarks: where each one's data lies, and how its rows become questions. Another one is one more file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sgl_proxythinker.evaluation.benchmarks import (
    mathverse,
    mathvision,
    mathvista,
    mmmu_pro,
    r1_onevision,
    tiny_family,
)
from sgl_proxythinker.evaluation.benchmarks.rows import Source
from sgl_proxythinker.evaluation.benchmarks.wording import Wording
from sgl_proxythinker.evaluation.questions import Question


class Benchmark(NamedTuple):
    """A published data set."""

    title: str  # as papers write it
    hub: str | None  # its name on the Hub; None: it is made here
    questions: Callable[[Source, Wording], Iterator[Question]]


BENCHMARKS = {
    mathvista.NAME: Benchmark("MathVista", mathvista.HUB, mathvista.questions),
    mathverse.NAME: Benchmark("MathVerse", mathverse.HUB, mathverse.questions),
    mathvision.NAME: Benchmark("MathVision", mathvision.HUB, mathvision.questions),
    mathvision.MINI_NAME: Benchmark("MathVision testmini", mathvision.HUB, mathvision.mini_questions),
    mmmu_pro.NAME: Benchmark("MMMU-Pro", mmmu_pro.HUB, mmmu_pro.questions),
    r1_onevision.NAME: Benchmark("R1-Onevision-Bench", r1_onevision.HUB, r1_onevision.questions),
    tiny_family.NAME: Benchmark("Tiny family", None, tiny_family.questions),
}
