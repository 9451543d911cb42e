"""Everything that a start checks, one finding each: what was compared and found, or what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import torch

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.doctor.towers import equal_tower_bytes
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.launch import cpu
from sgl_proxythinker.launch.checkpoints import CHECKS, Checkpoints
from sgl_proxythinker.launch.hooks import check_upstream
from sgl_proxythinker.launch.memory_plan import MemoryPlan, plan_memory, settle_drafts
from sgl_proxythinker.launch.quantization import check_keys
from sgl_proxythinker.launch.server_args import check_preferred, default_arguments, settled_arguments
from sgl_proxythinker.nodes.flags import check_nodes
from sgl_proxythinker.pictures.part import check_process_config
from sgl_proxythinker.placement import GIB, Placement, place
from sgl_proxythinker.policy.environment import check_environment
from sgl_proxythinker.policy.server_arguments import check_arguments
from sgl_proxythinker.policy.speculation import settle_speculation
from sgl_proxythinker.roles import DRAFTER, Role
from sgl_proxythinker.sentences import tidy

T = TypeVar("T")

# SGLang asks the GPU which attention is best; where there is none, this one is taken for the plan.
_ATTENTION = "fa3"


class Finding(NamedTuple):
    """One check."""

    check: str
    found: str  # or what is wrong, and what to change
    is_sound: bool = True


class Examination:
    """What a start would find: checks go on after what is wrong, as far as the rest can be told.

    Attributes:
        findings: in the order of the checks.
        placement: None: something before it is wrong.
        memory: None: so, or no GPU was named or found, or the weights are not of 16 bits.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.placement: Placement | None = None
        self.memory: MemoryPlan | None = None

    @property
    def is_sound(self) -> bool:
        return all(finding.is_sound for finding in self.findings)

    def check(self, name: str, run: Callable[[], T], words: Callable[[T], str] = str) -> T | None:
        """Note what a check returns, in words, or the sentence that it raises. Returns None where it raises."""
        try:
            result = run()
        except LaunchError as error:
            self._note_fault(name, str(error))
            return None
        except Exception as error:  # SGLang's, of arguments that it refuses itself, and ours: the other findings count
            self._note_fault(name, f"{type(error).__name__}: {tidy(str(error))}")
            return None
        self.findings.append(Finding(name, words(result)))
        return result

    def _note_fault(self, name: str, sentence: str) -> None:
        """Once: a file that can't be read is in the way of several checks."""
        if sentence not in (finding.found for finding in self.findings):
            self.findings.append(Finding(name, sentence, False))

    def _check_keys(self, given: Mapping[str, Any], checkpoints: Checkpoints) -> None:
        kept, usual = given.get("kv_cache_dtype") or "auto", _attention_of(given)
        if kept == "fp8_e5m2" and usual == _ATTENTION and not given.get("attention_backend"):
            usual = "triton"  # which SGLang puts in its place
        asked = {name: given.get(name) for name in ("prefill_attention_backend", "decode_attention_backend")}
        arguments = SimpleNamespace(kv_cache_dtype=kept, attention_backend=usual, **asked)
        try:
            check_keys(arguments, checkpoints.models().dtypes)
        except LaunchError as error:
            self._note_fault("precisions", str(error))

    def run(
        self, config: ProxyConfig | None, given: dict[str, Any], resolve: Callable[[], Any], memory_bytes: int | None
    ) -> None:
        """Check a launch as a start does.

        Args:
            config: the small models; None: it is not known which, so that nothing is said of any model.
            given: SGLang's arguments by field name, as the user gave them; what follows from guidance is filled in.
            resolve: builds SGLang's `ServerArgs` from `given`.
            memory_bytes: of one GPU; None: there is no plan of memory.
        """
        self.check("SGLang", _check_sglang)
        self.check("environment", _check_environment)
        self.check("flags", lambda: _check_flags(given))
        nodes = self.check("nodes", lambda: check_nodes(given), _nodes_in_words)
        if config is None:
            return
        if config.drafts:
            asked, attention, on_cpu = config, _attention_of(given), cpu.is_needed(given.get("device"))
            settled = self.check(
                "speculation",
                lambda: settle_speculation(asked, given, attention, on_cpu),
                lambda found: _drafts_in_words(*found, given),
            )
            # A wish that can't be counts as none: what else there is to say is said without drafts.
            config = config.without_drafts() if settled is None else settled[0]
        checkpoints = Checkpoints(config, given)
        found: list[str | None] = []
        for name, check in CHECKS.items():
            found.append(self.check(name, lambda check=check: check(checkpoints)))  # type: ignore[misc]
            if found[0] is None:  # no later check knows what to compare
                return
        if nodes is None:
            return
        # Of models that would not be served like this it is told where they would run, and not what they would take.
        known_bytes = None if None in found else memory_bytes

        def place_models() -> Placement:
            ranks, shapes, drafts = given.get("tp_size", 1), checkpoints.shapes(), config.always_drafts
            return place(ranks, shapes, config.placement, config.tp_size, known_bytes, nodes, drafts)

        if memory_bytes is None:  # with it SGLang says below which attention it chooses
            self._check_keys(given, checkpoints)
        self.placement = placement = self.check("placement", place_models)
        if placement is None or None in found:
            return
        models = checkpoints.models()
        spared: Mapping[Role, int] | None = None
        if checkpoints.reads_pictures:
            spared = self.check("vision towers", lambda: _spared(config, placement), _towers_in_words)
        if memory_bytes is None:
            return
        if not all(shape.weight_bytes for shape in models.shapes.values()):
            self.findings.append(Finding("memory", "not planned: the size of such weights is not known here"))
            return

        def plan() -> tuple[MemoryPlan, str | None]:
            from sgl_proxythinker.speculation.algorithm import most_running  # imports SGLang

            _check_numbers(given)
            given.update(settled_arguments(config, given, models, memory_bytes))
            if not torch.cuda.is_available():
                given["attention_backend"] = given.get("attention_backend") or _ATTENTION
            with _gpu_of(memory_bytes):
                server_args = resolve()
            check_keys(server_args, models.dtypes)
            shapes = {
                role: shape._replace(weight_bytes=shape.weight_bytes - (spared or {}).get(role, 0))
                for role, shape in models.shapes.items()
            }
            # Where there is a GPU, SGLang has chosen its attention by now.
            attention, on_cpu = server_args.attention_backend, server_args.device == "cpu"
            served, why_not = settle_speculation(config, given, attention, on_cpu)
            if why_not is None:
                served, why_not = settle_drafts(served, models, placement, server_args, memory_bytes)
            if served.always_drafts and (most := most_running(server_args)) is not None:
                server_args.override("proxythinker.speculate", max_running_requests=most)
            made, without = (
                plan_memory(shapes, placement, server_args, memory_bytes, drafts, models.image_cache_bytes)
                for drafts in (served.drafts, 0)
            )
            if not made.tokens:
                raise LaunchError(
                    "the weights leave no room for KV. Use more or larger GPUs (--tp-size), or smaller models."
                )
            if made.left_bytes < 0:
                drafts_take = without.left_bytes - made.left_bytes
                off = f" Without drafts (--proxy-speculate off) they take {drafts_take / GIB:.2f} GiB less."
                raise LaunchError(
                    f"weights, KV and graphs take {-made.left_bytes / GIB:.1f} GiB more than a GPU has: lower "
                    "--mem-fraction-static or --max-total-tokens, or use more or larger GPUs (--tp-size)."
                    + (off if drafts_take else "")
                )
            return made, why_not

        planned = self.check("memory", plan, lambda found: _plan_in_words(*found))
        self.memory = None if planned is None else planned[0]


def _check_numbers(given: Mapping[str, Any]) -> None:
    """Those that a plan divides by or multiplies with; SGLang finds what is wrong with them later, or never."""
    share = given.get("mem_fraction_static")
    if share is not None and not 0 < share < 1:
        raise LaunchError(f"--mem-fraction-static is {share}: it is a share of the GPU, above 0 and below 1.")
    for name in ("max_total_tokens", "context_length"):
        number = given.get(name)
        if number is not None and number < 1:
            raise LaunchError(f"--{name.replace('_', '-')} is {number}: it is a number of tokens, from 1 on.")


def _check_sglang() -> str:
    import sglang

    check_upstream()
    return f"{sglang.__version__}: every definition that is hooked or called is as it was read"


def _check_environment() -> str:
    check_environment(os.environ)
    return "no variable is set that knows one model only"


def _check_flags(given: dict[str, Any]) -> str:
    if cpu.is_needed(given.get("device")):
        cpu.check(given)
    check_arguments(given, default_arguments())
    check_process_config(_parsed(given.get("mm_process_config")))
    check_preferred(_parsed(given.get("preferred_sampling_params")))
    return "none is given that knows one model only"


def _parsed(value: Any) -> Any:
    """What SGLang makes of a flag's JSON once it resolves its arguments."""
    read = json.loads(value) if isinstance(value, str) else value
    if read is not None and not isinstance(read, dict):
        raise LaunchError(f"{str(value)[:60]} is no JSON object, which --mm-process-config and its like are.")
    return read


def _nodes_in_words(nodes: int) -> str:
    return "one host" if nodes == 1 else f"{nodes} hosts, which are to have GPUs of the same size"


def _attention_of(given: Mapping[str, Any]) -> str:
    usual = cpu.SERVER_DEFAULTS["attention_backend"] if cpu.is_needed(given.get("device")) else _ATTENTION
    return str(given.get("attention_backend") or usual)


def _drafts_in_words(config: ProxyConfig, why_not: str | None, given: Mapping[str, Any]) -> str:
    if why_not:
        return f"no drafts, because {why_not}"
    found = f"the {DRAFTER} may write {config.drafts} tokens ahead"
    if cpu.is_needed(given.get("device")) or given.get("attention_backend"):
        return found
    found += f", where SGLang chooses {_ATTENTION}, as on Hopper; on other GPUs give --attention-backend triton"
    return found if config.asks_for_drafts else f"{found}, else there are none"


def _plan_in_words(plan: MemoryPlan, why_not: str | None) -> str:
    found = f"about {plan.tokens:,} tokens of KV for each model"
    return f"{found}; no drafts, because {why_not}" if why_not else found


def _spared(config: ProxyConfig, placement: Placement) -> dict[Role, int] | None:
    """Bytes of each tower that another model of the same ranks has too; None: it can't be told."""
    spared: dict[Role, int] = {}
    for owner, role in combinations(placement.small_models, 2):
        if placement.ranks[owner] == placement.ranks[role] and not spared.get(role):
            size = equal_tower_bytes(config.small_models[owner].path, config.small_models[role].path)
            if size is None:
                return None
            spared[role] = size
    return spared


def _towers_in_words(spared: Mapping[Role, int] | None) -> str:
    if spared is None:
        return "not compared: weights of small models are not in local files"
    if not spared:
        return "not compared: the small models run on different ranks, each with a tower of its own"
    return ", ".join(
        f"the {role}'s is another model's too, so {size / GIB:.2f} GiB are held once and pictures encoded once for both"
        if size
        else f"the {role}'s is its own"
        for role, size in spared.items()
    )


@contextmanager
def _gpu_of(memory_bytes: int) -> Iterator[None]:
    """Let SGLang size its budgets for a GPU that need not be here."""
    from sgl_proxythinker.upstream.launch import server_args

    asked = server_args.get_device_memory_capacity
    server_args.get_device_memory_capacity = lambda *_: memory_bytes >> 20
    try:
        yield
    finally:
        server_args.get_device_memory_capacity = asked
