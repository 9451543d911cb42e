"""A person reads the log of a start: it is short, and says what is served, where, and how much fits."""

import logging
import re

import pytest

from sgl_proxythinker.launch.start_log import keep_short

MOST_LINES = 170  # of six models, on a CPU, where torchcodec finds no FFmpeg; nearly all are SGLang's own
A_SCREEN = 50  # of ours, whose tables have a row for each model


@pytest.mark.xdist_group("guided")
def test_a_start_is_told_in_a_few_lines(guided, triple):
    start = guided.log_text().split("The server is fired up")[0]
    assert len(start.splitlines()) <= MOST_LINES, start[:5000]
    ours = re.findall(r"^(?:\[[^]]*\] proxythinker: |rank +model|\d+ +\w+ +[\d.]+).*", start, re.MULTILINE)
    assert 10 < len(ours) <= A_SCREEN, ours
    assert f"{triple.base} is guided by expert {triple.expert}, amateur {triple.amateur}, " in start
    assert ", strength 0.5 where a request names none" in start
    assert re.search(r"placement shared \(base on rank 0, .* chosen: all ranks run all models\)", start)
    assert re.search(r"^0 +sum +[\d.]+ +[\d,]+ +[\d.]+ +[\d,]+$", start, re.MULTILINE), "how much fits"
    assert "Applied 1 hook" not in start and "libtorchcodec loading traceback" not in start


@pytest.fixture
def logged(caplog):
    """What SGLang logs under a name comes out as these lines."""

    def log(name, message, *arguments):
        caplog.clear()
        logging.getLogger(name).warning(message, *arguments)
        return [record.getMessage() for record in caplog.records]

    yield log
    for name in ("managers.multimodal_processor", "models.registry", "plugins.hook_registry"):
        logger = logging.getLogger(f"sglang.srt.{name}")
        for each in list(logger.filters):
            logger.removeFilter(each)


def test_what_can_not_be_imported_is_said_in_a_line(logged):
    keep_short([])
    keep_short([])
    told = logged(
        "sglang.srt.models.registry", "Ignore import error when loading a.b: 100 % no c. Likely causes:\n1.\n2."
    )
    assert told == ["Ignore import error when loading a.b: 100 % no c."]
    assert logged("sglang.srt.models.registry", "another\nline of %s", "two") == ["another\nline of two"]


def test_a_reason_that_begins_with_an_empty_line_is_told(logged):
    keep_short([])
    said = "Ignore import error when loading a.b: "
    assert logged("sglang.srt.models.registry", f"{said}\nneeds torchvision\nmore") == [f"{said}needs torchvision"]


def test_our_hooks_are_not_told_one_by_one_and_failures_and_others_are(logged):
    keep_short(["ours"])
    name, applied = "sglang.srt.plugins.hook_registry", "Applied %d hook(s) to %s (from: %s)"
    assert logged(name, applied, 1, "ours", "b") == []
    assert logged(name, applied, 1, "theirs", "b") == ["Applied 1 hook(s) to theirs (from: b)"]
    assert logged(name, "Failed to apply %s", "ours") == ["Failed to apply ours"]


def test_at_debug_all_is_shown_though_the_level_is_set_later(logged, caplog):
    keep_short([])
    caplog.set_level(logging.DEBUG)
    whole = "Ignore import error when loading a.b: no c\nwhy"
    assert logged("sglang.srt.models.registry", whole) == [whole]
