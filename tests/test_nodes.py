"""Laws of a server over several hosts: who runs what, who may take part, and that all of them end together.

The nodes of these tests are threads at a real store. Real servers over two hosts are in test_placements.py (answers),
test_rank_death.py (ends) and test_failing_closed.py (starts).
"""

import copy
import json
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from torch.distributed import TCPStore

from roster import TRIPLE
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.nodes.agreement import agree
from sgl_proxythinker.nodes.flags import Address, check_nodes, read_address
from sgl_proxythinker.nodes.meeting import Meeting
from sgl_proxythinker.nodes.statement import difference, statement
from sgl_proxythinker.nodes.watch import Watch
from sgl_proxythinker.placement import Shape, place
from sgl_proxythinker.policy.server_arguments import fields_that_act
from sgl_proxythinker.programs.random_triple import make_triple
from sgl_proxythinker.programs.server_process import reserve_port
from sgl_proxythinker.roles import BASE
from sgl_proxythinker.server import mark_as_ours

SHAPES = dict.fromkeys(TRIPLE, Shape(heads=64, kv_heads=8, mlp=1024, vision_heads=16, vision_mlp=1024))
MET_AT = "10.0.0.1:29500"


# Flags


@pytest.mark.parametrize(
    ("given", "nodes"),
    [
        ({}, 1),
        ({"nnodes": 1, "node_rank": 0, "dist_init_addr": None}, 1),
        ({"nnodes": 2, "node_rank": 1, "dist_init_addr": MET_AT}, 2),
    ],
)
def test_flags_that_name_a_node(given, nodes):
    assert check_nodes(given) == nodes


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"nnodes": -1}, "--nnodes is -1"),
        ({"nnodes": 0}, "--nnodes is 0"),
        ({"nnodes": 2, "dist_init_addr": f"{MET_AT}/x"}, "is not HOST:PORT"),
        ({"nnodes": 2, "dist_init_addr": f"me@{MET_AT}"}, "is not HOST:PORT"),
        ({"node_rank": 1}, "--node-rank 1 with --nnodes 1"),
        ({"nnodes": 2, "node_rank": 2, "dist_init_addr": MET_AT}, "--node-rank 2 with --nnodes 2"),
        ({"nnodes": 2, "node_rank": 1}, "--nnodes 2 without --dist-init-addr"),
        ({"nnodes": 2, "dist_init_addr": "10.0.0.1"}, "'10.0.0.1' is not HOST:PORT"),
        ({"nnodes": 2, "dist_init_addr": "10.0.0.1:port"}, "is not HOST:PORT"),
        ({"nnodes": 2, "dist_init_addr": ":29500"}, "is not HOST:PORT"),
    ],
)
def test_flags_that_name_none(given, sentence):
    with pytest.raises(LaunchError, match=sentence.replace("[", r"\[")):
        check_nodes(given)


def test_an_address_may_be_of_ipv6():
    assert read_address("[fd00::1]:29500") == Address("fd00::1", 29500)


# Placement


@pytest.mark.parametrize(
    ("ranks", "nodes", "name", "each", "wanted"),
    [
        (2, 2, None, None, "split: base 0 1, expert 0, amateur 1"),  # too few for another one
        (3, 3, None, None, "dedicated: base 0, expert 1, amateur 2"),
        (4, 2, None, None, "dedicated: base 0, expert 1, amateur 1"),
        (8, 2, None, None, "dedicated: base 0, expert 1, amateur 1"),
        (16, 2, None, None, "dedicated: base 0, expert 1, amateur 1"),
        (4, 2, "split", None, "split: base 0 1, expert 0, amateur 1"),
        (4, 2, "shared", None, "shared: base 0 1, expert 0 1, amateur 0 1"),
    ],
)
def test_models_stay_on_one_node_where_they_can(ranks, nodes, name, each, wanted):
    placement = place(ranks, SHAPES, name, each, nodes=nodes)
    told = ", ".join(f"{role} {' '.join(map(str, placement.nodes_of(role)))}" for role in placement.ranks)
    assert f"{placement.name}: {told}" == wanted


def test_the_base_has_the_first_node_and_the_small_models_the_last():
    placement = place(8, SHAPES, nodes=2)
    assert [placement.ranks[role] for role in TRIPLE] == [(0, 1, 2, 3), (4, 5), (6, 7)]
    assert [list(placement.ranks_of_node(node)) for node in (0, 1)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert placement.describe_rank(5) == "rank 5 on node 1, which runs the expert"
    assert "base on ranks 0 to 3 of node 0, expert on ranks 4 to 5 of node 1" in str(placement)
    assert placement.describe()[6] == {"rank": 6, "node": 1, "models": ["amateur"]}


def test_a_wish_comes_before_the_network():
    placement = place(8, SHAPES, "split", nodes=2)
    assert placement.nodes_of(BASE) == (0, 1)
    assert "base on ranks 0 to 7 of nodes 0 to 1" in str(placement)


@pytest.mark.parametrize("nodes", [1, 2, 4])
@pytest.mark.parametrize("ranks", [4, 8, 16])
def test_each_node_has_equally_many_ranks_and_each_rank_one_node(ranks, nodes):
    placement = place(ranks, SHAPES, "shared", nodes=nodes)
    for node in range(nodes):
        own = placement.ranks_of_node(node)
        assert len(own) == ranks // nodes and {placement.node_of(rank) for rank in own} == {node}


def test_ranks_that_nodes_can_not_share_are_refused_with_some_that_they_can():
    with pytest.raises(LaunchError, match="--tp-size 3 with --nnodes 2: .* What is near and works: 2 or 4"):
        place(3, SHAPES, nodes=2)


# What nodes say


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    return make_triple(tmp_path_factory.mktemp("nodes"))


def arguments(triple, base=None, expert=None, amateur=None, placement="split", **settings):
    """SGLang's, as far as a node says them."""
    paths = {"expert_path": str(expert or triple.expert), "amateur_path": str(amateur or triple.amateur)}
    own = {"nnodes": 2, "node_rank": 1, "revision": None, "model_path": str(base or triple.base), "page_size": 1}
    own |= {"served_model_name": own["model_path"], "download_dir": None}  # as SGLang resolves them
    own |= {"tokenizer_path": own["model_path"]}
    own |= {name: settings.pop(name) for name in list(settings) if name in own}
    args = SimpleNamespace(**{**dict.fromkeys(fields_that_act()), **own})
    config = ProxyConfig(**paths, placement=placement, **settings)
    mark_as_ours(args, config, place(2, SHAPES, placement, nodes=2), Limits())
    return args


def told_difference(one, other):
    one, other = (json.loads(json.dumps(statement(args))) for args in (one, other))
    return difference(one, other, ("node 0", "node 1"))


@pytest.fixture
def another(triple, tmp_path):
    """A checkpoint elsewhere, the same one until a test changes it."""

    def copied(role):
        target = tmp_path / role
        shutil.copytree(getattr(triple, role), target)
        return target

    return copied


def test_nodes_of_one_command_say_the_same(triple):
    assert told_difference(arguments(triple), arguments(triple)) is None


def test_a_checkpoint_may_lie_elsewhere(triple, another):
    for role in ("base", "expert"):
        assert told_difference(arguments(triple), arguments(triple, **{role: another(role)})) is None


@pytest.mark.parametrize("missing", [True, False])
def test_where_answers_end_must_be_the_same(triple, another, missing):
    """Kills: a node that goes on with a request which the other has ended, and waits for it in a collective."""
    base = another("base")
    ends = base / "generation_config.json"
    if missing:
        ends.unlink()
    else:
        ends.write_text(json.dumps(json.loads(ends.read_text()) | {"eos_token_id": [1, 2]}))
    assert "the base's generation_config.json is not the same file" in told_difference(
        arguments(triple), arguments(triple, base=base)
    )


def test_a_tokenizer_of_its_own_must_be_the_same_and_may_lie_elsewhere(triple, another):
    expert, amateur = another("expert"), another("amateur")
    here, there = (arguments(triple, tokenizer_path=str(folder)) for folder in (expert, amateur))
    assert told_difference(here, there) is None
    (amateur / "tokenizer_config.json").write_text("{}")
    assert "files of --tokenizer-path: " in told_difference(here, there)


def test_weights_need_not_lie_where_nobody_reads_them(triple, another):
    """Of a model that runs on the other node, its config and tokenizer do."""
    expert, there = another("expert"), arguments(triple)
    (expert / "model.safetensors").unlink()
    here = arguments(triple, expert=expert)
    assert "the expert is " in told_difference(here, there), "nothing says that it is the same one"
    said = statement(here)
    said["models"]["expert"]["path"] = str(triple.expert)
    assert difference(said, statement(there), ("node 0", "node 1")) is None


def test_a_hub_id_that_one_host_would_fetch_is_refused_unless_its_revision_is_named(triple):
    there = statement(arguments(triple))
    here = copy.deepcopy(there)
    here["models"]["expert"]["files"] = {}
    found = difference(here, there, ("node 0", "node 1"))
    assert f"the expert {str(triple.expert)!r} is on the disk of node 1 and not of node 0" in found
    for each in (here, there):
        each["models"]["expert"]["revision"] = "a1b2"
    assert difference(here, there, ("node 0", "node 1")) is None


def test_one_weight_more_or_less_is_found(triple, another):
    amateur = another("amateur")
    weights = bytearray((amateur / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (amateur / "model.safetensors").write_bytes(weights)
    found = told_difference(arguments(triple), arguments(triple, amateur=amateur))
    assert found.startswith("the amateur's model.safetensors is not the same file in ") and str(amateur) in found


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"alpha": 0.7}, "--proxy-alpha: 0.5 on node 0, 0.7 on node 1"),
        ({"speculate": 2}, "--proxy-speculate: 'auto' on node 0, 2 on node 1"),
        ({"speculate": "off"}, "--proxy-speculate: 'auto' on node 0, 'off' on node 1"),
        ({"placement": "shared"}, "--proxy-placement: 'split' on node 0, 'shared' on node 1"),
        ({"page_size": 16}, "--page-size: 1 on node 0, 16 on node 1"),
        ({"expert": {"quantization": "fp8"}}, "quantization of the expert: None on node 0, 'fp8' on node 1"),
    ],
)
def test_another_wish_is_found(triple, there, found):
    expert = there.pop("expert", None)
    args = arguments(triple, **there)
    if expert:
        args = arguments(triple)
        config = ProxyConfig(expert_path=str(triple.expert), amateur_path=str(triple.amateur), placement="split",
                             expert=expert)  # fmt: skip
        mark_as_ours(args, config, place(2, SHAPES, "split", nodes=2), Limits())
    assert found in told_difference(arguments(triple), args)


def test_swapped_small_models_are_found(triple):
    swapped = arguments(triple, expert=triple.amateur, amateur=triple.expert)
    found = told_difference(arguments(triple), swapped)
    assert "the expert's model.safetensors" in found and "the amateur's model.safetensors" in found


@pytest.mark.parametrize("package", ["sgl-proxythinker", "sglang", "torch"])
def test_another_version_is_found(triple, package):
    one = statement(arguments(triple))
    other = copy.deepcopy(one)
    other["versions"][package] += "1"
    assert f"{package}: '" in difference(one, other, ("node 0", "node 1"))


def test_where_a_node_is_and_how_it_was_seeded_is_its_own(triple):
    there = arguments(triple)
    there.node_rank, there.random_seed, there.dist_init_addr, there.mem_fraction_static = 0, 7, "b:1", 0.9
    assert told_difference(arguments(triple), there) is None


# Where they meet


def seats(nodes=2):
    """Seats at one store, node 0's first; all have come."""
    address = Address("127.0.0.1", reserve_port())
    made = [Meeting(address, node, nodes, waits_s=20.0) for node in range(nodes)]
    with ThreadPoolExecutor(nodes) as pool:
        list(pool.map(Meeting.come, made))
    return made


SAID = {"host": "a", "versions": {}, "settings": {"--proxy-alpha": 0.5}, "placement": {}, "arguments": {}, "models": {}}


def agreement(meeting, said):
    """None, or the sentence."""
    try:
        agree(meeting, said)
    except LaunchError as error:
        return str(error)
    return None


def test_nodes_that_say_the_same_agree():
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(agreement, seats(3), [SAID, SAID | {"host": "b"}, SAID])) == [None] * 3


def test_nodes_that_differ_are_all_told_who_and_how():
    other = SAID | {"host": "b", "settings": {"--proxy-alpha": 1.0}}
    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(agreement, seats(3), [SAID, SAID, other]))
    assert told[0] == told[1] == told[2]
    assert "--proxy-alpha: 0.5 on node 0 (a), 1.0 on node 2 (b)" in told[0]


def test_a_node_that_does_not_come_is_named():
    first, *_ = seats(3)
    first._waits_s = 1.5  # not before: to come may take longer, where a name server is slow
    assert "nothing was heard of nodes 1, 2 of 3 for 1.5 s" in agreement(first, SAID)


def test_a_plain_process_group_at_the_store_is_found():
    """What torch's rendezvous leaves there before it waits for the other ranks."""
    first, second = seats(2)
    second.store.set("default_pg/0//cpu//rank_1", "an address")
    assert "a process has joined --dist-init-addr" in agreement(first, SAID)


def announced(address, rank):
    """None, or the sentence."""
    try:
        Meeting(address, rank, 2, waits_s=20.0).announce_rank(rank, 2)
    except LaunchError as error:
        return str(error)
    return None


def test_ranks_join_once_all_have_said_so():
    first, _ = seats()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(announced, [first.address] * 2, range(2))) == [None, None]


def test_a_rank_that_joins_without_our_worker_is_found():
    first, second = seats()
    second.store.set("default_pg/0//cpu//rank_1", "an address")
    assert "while rank 1 of 2 had not said what it serves" in announced(first.address, 0)
    assert "rank 1 of 2" in second.first_failure()


def test_a_store_that_is_nowhere_is_named():
    with pytest.raises(LaunchError, match="node 0 was not found at --dist-init-addr 127.0.0.1:"):
        Meeting(Address("127.0.0.1", reserve_port()), 1, 2, waits_s=1.0).come()


@pytest.mark.heavy
def test_a_listener_that_says_nothing_is_waited_for_no_longer():
    """A wrong port, or node 0's main process stopped: torch's own time limit does not hold there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address(*silent.getsockname())
        with pytest.raises(LaunchError, match="node 0 was not found at --dist-init-addr 127.0.0.1:"):
            Meeting(address, 1, 2, waits_s=1.0).come()
        assert Meeting(address, 1, 2).first_failure() is None


def test_two_hosts_with_one_number_are_told():
    _, second = seats(2)
    with pytest.raises(LaunchError, match="node 1 has come to 127.0.0.1:.* a --node-rank of its own"):
        Meeting(second.address, 1, 2, waits_s=20.0).come()


def test_who_waits_hears_that_another_has_ended():
    first, second, _ = seats(3)
    second.leave_word("its start failed: no such file")
    assert agreement(first, SAID) == "node 1 has ended: its start failed: no such file"


def test_a_port_that_is_taken_is_named():
    address = Address("127.0.0.1", reserve_port())
    held = TCPStore(*address, is_master=True, wait_for_workers=False)
    with pytest.raises(LaunchError, match="node 0 can't listen at --dist-init-addr"):
        Meeting(address, 0, 2).come()
    del held


# The end


def watched(meeting, timeout_s=30.0):
    """A watch whose steps a test makes, and the event that it ends its node."""
    ended = threading.Event()
    watch = Watch(meeting, timeout_s, ended.set)
    return watch, ended, meeting.connect(20)


def test_a_node_hears_why_another_has_ended():
    first, second = seats(2)
    watch, ended, store = watched(first)
    watch.look_once(store, 1)
    assert not ended.is_set()
    second.leave_word("scheduler_1 (rank 1, which runs the expert) ended with exit code -9")
    second.leave_word("its main process has ended")
    watch.look_once(store, 2)
    assert ended.is_set()
    [why] = watch.why_others_ended
    assert why.startswith("node 1 has ended: scheduler_1 (rank 1, which runs the expert)")


def test_node_0_waits_until_its_word_is_heard():
    """The store ends with it."""
    first, second = seats(2)
    leaving = threading.Thread(target=first.leave_word, args=("the disk is full",))
    leaving.start()
    watch, ended, store = watched(second)
    while not ended.is_set():
        watch.look_once(store, 1)
    leaving.join(timeout=30)
    assert not leaving.is_alive() and watch.why_others_ended == ["node 0 has ended: the disk is full"]


def test_a_node_that_falls_silent_has_ended():
    first, second = seats(2)
    watch, ended, store = watched(first, timeout_s=10)
    other, _, store_of_other = watched(second)
    for count in range(3):
        watch.add_silence(8)
        other.look_once(store_of_other, count)
        watch.look_once(store, count)
        assert not ended.is_set(), "it counts on"
    watch.add_silence(8)
    watch.look_once(store, 9)
    watch.add_silence(8)
    assert ended.is_set() and "nothing has been heard of node 1 for 10 s" in watch.why_others_ended[0]


def test_a_node_that_ends_already_is_not_ended_again():
    first, second = seats(2)
    watch, ended, store = watched(first)
    watch.expect_the_end()
    second.leave_word("gone")
    watch.look_once(store, 1)
    assert watch.why_others_ended and not ended.is_set()


def test_of_failed_ranks_the_first_counts():
    first, second = seats(2)
    assert first.first_failure() is None
    second.leave_first_failure("rank 1")
    first.leave_first_failure("rank 0")
    assert first.first_failure() == second.first_failure() == "rank 1"
