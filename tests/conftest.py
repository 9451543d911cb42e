"""Few servers, each shared by many tests: a start that is no fork (`warm_start`) costs a minute of imports.

Tests that share a server carry its `xdist_group`, so that two workers never start the same one (pytest-xdist 3.8 sees
the groups with pytest 8 and not with 9). By what it needs, each test has a lane: `pytest -m laws`, `-m "not ranks"`.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys

import pytest
import torch
import yaml
from hypothesis import settings

import servers
from servers import COMMON, DEVICE, ENGINE_DEVICE, command, serving
from sgl_proxythinker import tiny_family
from sgl_proxythinker.launch import cpu
from sgl_proxythinker.programs.random_triple import make_triple

LANES = {
    "laws": "neither a server nor SGLang, nor what is heavy: all of them in less than a minute on two cores",
    "heavy": "no server either: Python processes of their own, compilers, models that are trained or run",
    "parts": "SGLang's classes in the test's process, and no server",
    "served": "a server, the offline engine, or a program that starts one",
    "ranks": "servers of several processes, which are killed and stopped",
    "pages": "a browser",
    "gpu": "a GPU; skipped without",
}
_OF_GROUP = {"ranks": "ranks", "browser": "pages"}
_IN_PROCESS = {"sglang", "inputs", "image_cache", "new_cache"}  # fixtures that import SGLang

# Of a server that is told of tools.
TOOL_TEMPLATE = """{% for message in messages %}{% if loop.first %}<|im_start|>system
You are a helpful assistant.{% if tools %} Tools:{% for tool in tools %} {{ tool | tojson }}{% endfor %}{% endif %}<|im_end|>
{% endif %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""  # noqa: E501


def pytest_addoption(parser):
    parser.addoption("--speculate", metavar="K", help="guided servers under test write K tokens ahead")
    parser.addoption("--cold", action="store_true", help="all servers import SGLang, none is forked: warm_start.py")
    parser.addoption("--rare", action="store_true", help="also what others cover in parts, as on a GPU: make test-all")
    parser.addoption("--family-ranks", metavar="N", help="servers of all families have N ranks")


def pytest_configure(config):
    # A quarter of the time that SGLang's imports take would be the garbage collector's, and they leave no garbage.
    gc.set_threshold(100_000, 10, 10)
    if not servers.ON_GPU:
        # Oracles and servers share a few cores. Matrices this small are slower on two threads than on one, and much
        # slower where threads that wait keep the cores of those that work.
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # An answer of DNS may be lost: ask again after a second, and not after five. The C library reads it, and servers
    # under test inherit it.
    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:6")
    settings.register_profile("untimed", deadline=None)  # a busy machine is no reason to fail
    settings.load_profile("untimed")
    servers.all_cold = config.getoption("--cold")
    servers.speculate = config.getoption("--speculate")
    for lane, needs in LANES.items():
        config.addinivalue_line("markers", f"{lane}: needs {needs}")
    config.addinivalue_line("markers", "sources: beside its lane; it reads SGLang's text, which SGLANG_SRC names")
    config.addinivalue_line("markers", "rare: beside its lane; what it has of its own, others have in parts (--rare)")
    config.addinivalue_line("markers", "alone: beside its lane; the GPU's memory is to be its own")
    config.addinivalue_line("markers", "on_gpu: beside its lane; on a GPU it tests what runs there (make gpu-tests)")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config, items):
    if not (servers.ON_GPU or config.getoption("--rare")):
        rare = [item for item in items if item.get_closest_marker("rare")]
        config.hook.pytest_deselected(items=rare)
        items[:] = [item for item in items if not item.get_closest_marker("rare")]
    for item in items:
        item.add_marker(_lane(item))
        if servers.ON_GPU and (part := _part_of_a_group(item)):  # such a host has the memory for several at once
            item.add_marker(pytest.mark.xdist_group(part))
        if _says_something_on_a_gpu(item):
            item.add_marker("on_gpu")


def _part_of_a_group(item) -> str | None:
    """What may have a server of its own, though others of its group have the same one."""
    if layout := getattr(item, "callspec", None) and item.callspec.params.get("layout"):
        return layout
    return item.module.__name__ if "guided" in _groups(item) else None


def _groups(item) -> list[str]:
    return [mark.args[0] for mark in item.iter_markers("xdist_group")]


def _lane(item) -> str:
    if any("GPU" in mark.kwargs.get("reason", "") for mark in item.iter_markers("skipif")):
        return "gpu"
    if groups := _groups(item):
        return _OF_GROUP.get(groups[0], "served")
    if not _IN_PROCESS.isdisjoint(item.fixturenames):
        return "parts"
    return "heavy" if item.get_closest_marker("heavy") else "laws"


def _says_something_on_a_gpu(item) -> bool:
    """Tensors are put on the GPU, or a server's tokens are compared with the oracle's."""
    return {"DEVICE", "ON_GPU"} & vars(item.module).keys() or "reference" in item.fixturenames


def pytest_collection_finish():
    # What is imported stays: the collector need not look at it again, as it does seven times when tests end.
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    # An Engine that an earlier test of the same process held leaves the root logger at its own level. pytest's
    # `log_level` sets it six times a test, and each time empties what some thousand loggers have cached.
    if logging.root.level != logging.WARNING:
        logging.root.setLevel(logging.WARNING)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item):
    """A law that imports SGLang is none: it would pass, and the lane would take minutes."""
    # `import sglang`, which collecting all modules does, is light; its arguments are the first of what is not.
    if item.config.option.markexpr == "laws" and "sglang.srt.server_args" in sys.modules:
        pytest.fail("SGLang is imported since this test or one before it: a law needs none", pytrace=False)


@pytest.fixture(scope="session")
def triple(tmp_path_factory):
    """Three models of equal width and different weights: what leaks between them is not seen by shapes."""
    return make_triple(tmp_path_factory.mktemp("triple"))


@pytest.fixture(scope="session")
def experts(tmp_path_factory):
    """More experts of `triple`: the path of each, and of its amateur where that is its own."""
    folder = tmp_path_factory.mktemp("experts")
    math, charts = (make_triple(folder / name, seed=seed) for name, seed in (("math", 31), ("charts", 32)))
    return {"math": (math.expert, None), "charts": (charts.expert, charts.amateur)}


@pytest.fixture(scope="session")
def reference(triple, experts):
    # Not above: it takes seconds, also in the process that only hands out tests.
    from sgl_proxythinker.programs.reference_hf import Reference

    return Reference(triple.base, triple.expert, triple.amateur, experts=experts)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """Where HTTP clients of `guided` may name pictures by their path."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="session")
def guided(triple, experts, picture_folder, tmp_path_factory):
    """The main server, of several experts, which few of its tests ask for.

    Chunks of 64 tokens: prompts with an image are prefilled in pieces, short ones are not. It starts as a user's does.
    """
    folder = tmp_path_factory.mktemp("guided")
    of_charts = dict(zip(("path", "amateur_path"), map(str, experts["charts"]), strict=True))
    (folder / "experts.yaml").write_text(yaml.safe_dump({"experts": {"charts": of_charts}}))
    flags = (*COMMON, "--chunked-prefill-size", "64", "--enable-mixed-chunk", "--enable-metrics",
             "--proxy-image-folder", str(picture_folder), "--proxy-config", str(folder / "experts.yaml"),
             "--proxy-expert", f"math={experts['math'][0]}")  # fmt: skip
    log = folder / "log"
    with serving(command(triple.base, (triple.expert, triple.amateur), *flags), log, cold=True) as server:
        yield server


@pytest.fixture(scope="session")
def plain(triple, tmp_path_factory):
    """The base alone, by the same plugin without proxies."""
    log = tmp_path_factory.mktemp("plain") / "log"
    with serving(command(triple.base, None, *COMMON), log) as server:
        yield server


@pytest.fixture(scope="session")
def own_law():
    """Of a server or an engine, for requests that don't say theirs, by the names of `ProxyConfig`."""
    divergence = {"kind": "divergence", "scale": 10.0, "low": -1.0, "high": 1.0, "warmup_tokens": 3}
    return {"law": [divergence, {"kind": "entropy", "above": 1.9}], "clip": 1.5, "plausible": 0.2}


@pytest.fixture(scope="session")
def with_tools(triple, own_law, tmp_path_factory):
    """A guided server whose template shows tools and whose parser reads Qwen2.5's calls.

    It has a strength, a law and cuts of its own (`test_default_laws.py`), whatever is called.
    """
    folder = tmp_path_factory.mktemp("with_tools")
    (folder / "tools.jinja").write_text(TOOL_TEMPLATE)
    own = [word for name, value in own_law.items() for word in (f"--proxy-{name}", json.dumps(value))]
    # A model of random weights may write blanks for ever, where JSON allows them.
    flags = (
        *COMMON, "--chat-template", str(folder / "tools.jinja"), "--tool-call-parser", "qwen25",
        "--constrained-json-disable-any-whitespace", "--proxy-alpha", "0.75", *own,
    )  # fmt: skip
    with serving(command(triple.base, (triple.expert, triple.amateur), *flags), folder / "log") as server:
        yield server


def of_family() -> list[str]:
    """The command line that serves the tiny trained family."""
    flags = (*DEVICE, "--max-total-tokens", "16384", "--random-seed", "1", "--enable-cache-report")
    flags = (*flags, "--proxy-expert", f"{tiny_family.SPECIALIST.name}={tiny_family.SPECIALIST}")
    return command(tiny_family.BASE, (tiny_family.EXPERT, tiny_family.AMATEUR), *flags)


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """The tiny trained family, in which it shows whether guidance helps."""
    with serving(of_family(), tmp_path_factory.mktemp("family") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def equal_triple(tmp_path_factory):
    """An expert and an amateur that are one model: at any alpha the answers are the base's."""
    return make_triple(tmp_path_factory.mktemp("equal"), seed=7, equal_proxies=True)


@pytest.fixture(scope="session")
def engine(equal_triple, experts, own_law):
    """The offline engine, in this process. A law shows in what a further expert, `math`, says."""
    from sgl_proxythinker import Engine, ProxyConfig

    engine = Engine(
        model_path=str(equal_triple.base),
        proxy=ProxyConfig(expert_path=str(equal_triple.expert), amateur_path=str(equal_triple.amateur), alpha=0.25,
                          experts={"math": experts["math"][0]}, speculate="off", **own_law),
        max_total_tokens=4096, max_running_requests=32, **ENGINE_DEVICE,
    )  # fmt: skip
    yield engine
    engine.shutdown()


@pytest.fixture(scope="session")
def sglang():
    """SGLang's classes can be imported in this process."""
    if cpu.is_needed(None):
        cpu.install()
