"""Laws of the gathering of logits, over real gloo processes with SGLang's own groups.

Run as a script, this file is those processes: SGLang is imported once and the ranks are forked from it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from live_bytes import LiveBytes
from roster import SMALL, TRIPLE
from servers import clean_environment
from sgl_proxythinker.placement import Placement, Shape, place
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT, Role
from sgl_proxythinker.step.logits_gather import LogitsGather, gathered_bytes

pytestmark = pytest.mark.heavy

WORLD = 5  # ranks that are forked; a scenario takes the first of them
WITHIN_S = 300
DIVISIBLE = dict.fromkeys(TRIPLE, Shape(*[720720] * 5))

# Name of the placement, ranks, ranks of each proxy.
LAYOUTS = {
    "shared over 2": ("shared", 2, 2),
    "split over 2": ("split", 2, 1),
    "split over 4": ("split", 4, 2),
    "dedicated 1+1+1": ("dedicated", 3, 1),
    "dedicated 2+1+1": ("dedicated", 4, 1),
    "dedicated 3+1+1": ("dedicated", 5, 1),
    "dedicated 1+2+2": ("dedicated", 5, 2),
}
# Columns that are tokens: fewer than ranks, not divisible by any number of ranks, and divisible by all of them.
VOCABULARIES = (1, 2, 7, 61, 60)
DTYPES = ("float32", "float16", "bfloat16")
# Rows of the base and of the proxies, step by step; None: only the base ran.
STEPS = ((3, 3), (5, 2), (1, 1), (4, None), (2, 2), (6, 1))


def placement_of(layout: str) -> Placement:
    name, world_size, each = LAYOUTS[layout]
    return place(world_size, DIVISIBLE, name, each)


def logits_of(role: Role, rows: int, step: int, vocab_size: int, dtype: str) -> torch.Tensor:
    """What every rank of a role has computed: [rows, vocab_size and padding], padding that must not travel."""
    generator = torch.Generator().manual_seed(1000 * step + TRIPLE.index(role))
    padding = {BASE: 5, EXPERT: 0, AMATEUR: 3}[role]
    logits = torch.randn(rows, vocab_size + padding, generator=generator).to(getattr(torch, dtype)).float()
    logits[:, vocab_size:] = torch.nan
    return logits


def run_steps(group, layout: str, vocab_size: int, dtype: str) -> list[str]:
    """Gather as the ranks do, step after step. Returns what was wrong on this rank."""
    placement, wrong = placement_of(layout), []
    gather = LogitsGather(placement, group, vocab_size, getattr(torch, dtype), "cpu")
    for step, (base_rows, proxy_rows) in enumerate(STEPS):
        rows = {BASE: base_rows} | ({} if proxy_rows is None else dict.fromkeys(SMALL, proxy_rows))
        computed = {role: logits_of(role, count, step, vocab_size, dtype) for role, count in rows.items()}
        here = {role: computed[role].clone() for role in placement.roles_on(group.rank_in_group) if role in rows}
        with LiveBytes() as live:
            gathered = gather.gather(here, rows)
        planned = gathered_bytes(placement, vocab_size, base_rows, getattr(torch, dtype))
        if proxy_rows == base_rows and live.most != planned:
            wrong.append(f"step {step}: it takes {live.most} bytes, and {planned} are planned")
        if gathered.keys() != rows.keys():
            wrong.append(f"step {step}: {list(gathered)} in place of {list(rows)}")
        for role, sharded in gathered.items():
            told = sharded.rows(torch.arange(rows[role]), vocab_size)
            if not torch.equal(told.float(), computed[role][:, :vocab_size]):
                wrong.append(f"step {step}: the {role}'s logits are others")
            if sharded.shards.shape[1] < rows[role] or sharded.shards.stride(-1) != 1:
                wrong.append(f"step {step}: the {role}'s shards are {tuple(sharded.shards.shape)}")
        if not all(torch.equal(logits.nan_to_num(9), computed[role].nan_to_num(9)) for role, logits in here.items()):
            wrong.append(f"step {step}: what was given has changed")
    return wrong


def draw_tokens(group, dtype: str) -> list[int]:
    from sgl_proxythinker.step.logits_gather import one_token_for_all

    own = torch.tensor([100 * group.rank_in_group + row for row in range(4)], dtype=getattr(torch, dtype))
    return one_token_for_all(own, group).tolist()


def count_tokens(group, smallest: int) -> int:
    """KV tokens of ranks that have room for different numbers of them, `smallest` on one rank."""
    from sgl_proxythinker.step.logits_gather import least_of_all

    return least_of_all(2**40 + (group.rank_in_group - smallest) ** 2, group)


def be_a_rank(rank: int, world_group_of, results) -> None:
    try:
        groups = {size: world_group_of(rank, size) for size in sorted({size for _, size, _ in LAYOUTS.values()})}
        told = {}
        for layout, (_, size, _) in LAYOUTS.items():
            if rank < size:
                for vocab_size in VOCABULARIES:
                    for dtype in DTYPES:
                        told[f"{layout}/{vocab_size}/{dtype}"] = run_steps(groups[size], layout, vocab_size, dtype)
        for size, group in groups.items():
            if rank < size:
                told |= {f"tokens/{size}/{dtype}": draw_tokens(group, dtype) for dtype in ("int32", "int64")}
                told |= {f"least/{size}/{smallest}": count_tokens(group, smallest) for smallest in range(size)}
        results.put((rank, told))
    except BaseException as error:
        results.put((rank, repr(error)))
        raise


def main() -> None:
    from sgl_proxythinker.launch import cpu

    cpu.install()
    import multiprocessing

    from sglang.srt.distributed import parallel_state

    from sgl_proxythinker.programs.server_process import reserve_port

    address = f"tcp://127.0.0.1:{reserve_port()}"

    def world_group_of(rank: int, size: int):
        if not torch.distributed.is_initialized():
            torch.set_num_threads(1)
            parallel_state.init_distributed_environment(WORLD, rank, address, rank, "gloo", timeout=WITHIN_S // 2)
        ranks = [list(range(size)), *([other] for other in range(size, WORLD))]
        return parallel_state.init_model_parallel_group(ranks, rank, "gloo", use_pynccl=False, group_name=f"of{size}")

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=be_a_rank, args=(rank, world_group_of, results)) for rank in range(WORLD)]
    for child in children:
        child.start()
    try:
        told = dict(results.get(timeout=WITHIN_S) for _ in children)
    finally:
        for child in children:
            child.kill()
    print(json.dumps(told))


@pytest.fixture(scope="module")
def told():
    """What each rank saw of each scenario: {scenario: [rank 0's, rank 1's, ...]}."""
    # Where tests run from a checkout that is not installed, SGLang may be on this path too.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))
    env = clean_environment({"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path})
    run = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=2 * WITHIN_S)
    assert run.returncode == 0, run.stderr[-3000:]
    by_rank = json.loads(run.stdout.splitlines()[-1])
    assert all(isinstance(seen, dict) for seen in by_rank.values()), f"{by_rank}\n{run.stderr[-3000:]}"
    scenarios: dict[str, list] = {}
    for rank in range(WORLD):
        for scenario, seen in by_rank[str(rank)].items():
            scenarios.setdefault(scenario, []).append(seen)
    return scenarios


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
def test_every_rank_ends_with_the_exact_logits_of_every_role(told, layout, vocab_size):
    """Kills: another shard's columns, another role's ranks, rows that a rank didn't fill, padding taken for tokens."""
    for dtype in DTYPES:
        wrong = told[f"{layout}/{vocab_size}/{dtype}"]
        assert wrong == [[]] * LAYOUTS[layout][1], f"{dtype}, by rank"


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_every_rank_goes_on_with_the_first_ranks_tokens(told, size, dtype):
    assert told[f"tokens/{size}/{dtype}"] == [[0, 1, 2, 3]] * size


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_every_rank_has_as_many_kv_tokens_as_the_one_with_the_least_room(told, size):
    for smallest in range(size):
        assert told[f"least/{size}/{smallest}"] == [2**40] * size


# These ranks have nobody to talk to: a collective would raise.


def alone(layout: str, rank: int) -> LogitsGather:
    placement = placement_of(layout)
    group = SimpleNamespace(rank_in_group=rank, world_size=placement.world_size)
    return LogitsGather(placement, group, 7, torch.float16, "cpu")


def test_models_on_all_ranks_meet_without_a_collective():
    here = {role: logits_of(role, 3, 0, 7, "float32") for role in TRIPLE}
    gathered = alone("shared over 2", 1).gather(here, dict.fromkeys(TRIPLE, 3))
    for role, logits in here.items():
        assert gathered[role].shards.data_ptr() == logits.data_ptr(), "a view, in the dtype that was computed"
        assert gathered[role].shards.shape == (1, *logits.shape)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_base_on_all_ranks_that_answers_alone_needs_no_collective(rank):
    logits = logits_of(BASE, 3, 0, 7, "float32")
    gathered = alone("split over 2", rank).gather({BASE: logits}, {BASE: 3})
    assert list(gathered) == [BASE] and gathered[BASE].shards.data_ptr() == logits.data_ptr()


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_where_a_model_travels_there_is_a_collective(rank):
    """Else the two above would prove nothing."""
    here = {role: logits_of(role, 3, 0, 7, "float32") for role in placement_of("dedicated 1+1+1").roles_on(rank)}
    with pytest.raises(AttributeError, match="device_group"):
        alone("dedicated 1+1+1", rank).gather(here, dict.fromkeys(TRIPLE, 3))


if __name__ == "__main__":
    main()
