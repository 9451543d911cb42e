"""Few servers, each shared by many tests: a start costs a minute of imports.

Tests that share a server carry its `xdist_group`, so that two workers never start the same one (pytest-xdist 3.8 sees
the groups with pytest 8 and not with 9).
"""

from __future__ import annotations

import pytest

from programs.random_triple import make_triple
from programs.reference_hf import Reference
from servers import COMMON, DEVICE, ENGINE_DEVICE, command, serving
from sgl_proxythinker import tiny_family
from sgl_proxythinker.launch import cpu


@pytest.fixture(scope="session")
def triple(tmp_path_factory):
    """Three models of equal width and different weights: what leaks between them is not seen by shapes."""
    return make_triple(tmp_path_factory.mktemp("triple"))


@pytest.fixture(scope="session")
def reference(triple):
    return Reference(triple.base, triple.expert, triple.amateur)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """Where HTTP clients of `guided` may name pictures by their path."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="session")
def guided(triple, picture_folder, tmp_path_factory):
    """The main server. Chunks of 64 tokens: prompts with an image are prefilled in pieces, short ones are not."""
    flags = (*COMMON, "--chunked-prefill-size", "64", "--enable-mixed-chunk", "--enable-metrics",
             "--proxy-image-folder", str(picture_folder))  # fmt: skip
    log = tmp_path_factory.mktemp("guided") / "log"
    with serving(command(triple.base, (triple.expert, triple.amateur), *flags), log) as server:
        yield server


@pytest.fixture(scope="session")
def plain(triple, tmp_path_factory):
    """The base alone, by the same plugin without proxies."""
    log = tmp_path_factory.mktemp("plain") / "log"
    with serving(command(triple.base, None, *COMMON), log) as server:
        yield server


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """The tiny trained family, in which it shows whether guidance helps."""
    flags = (*DEVICE, "--max-total-tokens", "16384", "--random-seed", "1")
    proxies = (tiny_family.EXPERT, tiny_family.AMATEUR)
    with serving(command(tiny_family.BASE, proxies, *flags), tmp_path_factory.mktemp("family") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def equal_triple(tmp_path_factory):
    """An expert and an amateur that are one model: at any alpha the answers are the base's."""
    return make_triple(tmp_path_factory.mktemp("equal"), seed=7, equal_proxies=True)


@pytest.fixture(scope="session")
def engine(equal_triple):
    """The offline engine, in this process."""
    from sgl_proxythinker import Engine, ProxyConfig

    engine = Engine(
        model_path=str(equal_triple.base),
        proxy=ProxyConfig(expert_path=str(equal_triple.expert), amateur_path=str(equal_triple.amateur), alpha=0.25),
        max_total_tokens=4096, max_running_requests=32, **ENGINE_DEVICE,
    )  # fmt: skip
    yield engine
    engine.shutdown()


@pytest.fixture(scope="session")
def sglang():
    """SGLang's classes can be imported in this process."""
    if cpu.is_needed(None):
        cpu.install()
