"""Launches that must not serve: each is a real process, and ends with an exit code and a sentence."""

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest

from servers import COMMON, ON_GPU, command, launch_and_wait, launch_nodes_and_wait, nodes_of, sabotaged
from sgl_proxythinker.programs.random_triple import make_triple

pytestmark = pytest.mark.xdist_group("closed")


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    return make_triple(tmp_path_factory.mktemp("closed"))


@pytest.fixture
def copy_of(tmp_path):
    """A checkpoint that a test may spoil."""

    def copy(checkpoint):
        target = tmp_path / checkpoint.name
        shutil.copytree(checkpoint, target)
        return target

    return copy


def edit_json(path, **changes):
    content = json.loads(path.read_text())
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        if inner:
            content[outer][inner] = value
        else:
            content[outer] = value
    path.write_text(json.dumps(content))


def assert_refused(arguments, *fragments):
    code, output = launch_and_wait(arguments)
    assert code != 0, output[-2000:]
    for fragment in fragments:
        assert fragment in output, output[-3000:]
    assert "fired up" not in output


def test_one_path_without_the_other(triple):
    arguments = command(triple.base, None, "--proxy-expert-path", str(triple.expert))
    assert_refused(arguments, "--proxy-amateur-path is missing", "needs both")


def test_a_port_in_use_ends_it_before_weights_are_read(triple):
    """SGLang binds last, and its warm-up would be answered by whoever listens there."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, output = launch_and_wait(command(triple.base, (triple.expert, triple.amateur)), port=port)
    assert code != 0 and f"--port {port} is in use" in output and "another --port" in output, output[-2000:]
    assert "Load weight" not in output and "fired up" not in output


def test_proxies_without_the_plugin(triple):
    arguments = [
        part
        for part in command(triple.base, (triple.expert, triple.amateur))
        if part not in ("--plugin", "proxythinker")
    ]
    assert_refused(arguments, "given without --plugin proxythinker", "Add --plugin proxythinker")


def test_an_unknown_plugin(triple):
    arguments = [part.replace("proxythinker", "proxythinkr") for part in command(triple.base, None)]
    assert_refused(arguments, "'proxythinkr' is not known")


def test_a_plugin_that_sglang_does_not_load(triple):
    """Filtered out, or broken so that it can't be imported: the flag is unknown, and that ends the launch."""
    code, output = launch_and_wait(command(triple.base, (triple.expert, triple.amateur)), {"SGLANG_PLUGINS": "other"})
    assert code == 2 and "unrecognized arguments: --plugin" in output


EXECUTABLE = Path(sys.executable).with_name("sglang")


@pytest.mark.skipif(ON_GPU and not EXECUTABLE.exists(), reason="SGLang was unpacked there, not installed")
def test_sglang_serve_refuses_the_same(triple):
    serve = [str(EXECUTABLE), "serve", *command(triple.base, None)[3:]]
    assert_refused([*serve, "--proxy-amateur-path", str(triple.amateur)], "--proxy-expert-path is missing")


on_a_cpu = pytest.mark.skipif(ON_GPU, reason="a sentence about CPUs")


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("--speculative-algorithm", "EAGLE"), "--speculative-algorithm"),
        (("--dp-size", "2"), "--dp-size"),
        (("--enable-lora",), "--enable-lora"),
        (
            ("--mm-feature-transport", "cuda_ipc"),
            "a model may read another picture. Use cpu, or leave",
        ),
        (("--keep-mm-feature-on-device",), "on a busy GPU a model may read another picture"),
        pytest.param(("--grammar-backend", "xgrammar"), "--grammar-backend xgrammar", marks=on_a_cpu),
        pytest.param(("--page-size", "16"), "--page-size 16", marks=on_a_cpu),
        pytest.param(
            ("--proxy-speculate", "3", "--prefill-attention-backend", "torch_native"),
            "--prefill-attention-backend doesn't go with --proxy-speculate",
            marks=on_a_cpu,
        ),
        (("--proxy-speculate", "x"), "speculate is 'x': 'off', 'auto', or a number of drafts from 1 to 7"),
    ],
)
def test_a_refused_flag_is_named(triple, flags, name):
    assert_refused(command(triple.base, (triple.expert, triple.amateur), *flags), name)


def test_a_refused_environment_variable_is_named(triple):
    arguments = command(triple.base, (triple.expert, triple.amateur))
    code, output = launch_and_wait(arguments, {"SGLANG_ENABLE_POST_CAPTURE_KV_SIZING": "1"})
    assert code != 0 and "SGLANG_ENABLE_POST_CAPTURE_KV_SIZING=1" in output


@pytest.mark.parametrize(
    ("flags", "why", "instead"),
    [
        (("--tp-size", "2", "--proxy-placement", "dedicated"), "two small models need 2 ranks and the base at",
         "The nearest that works: --tp-size 2 --proxy-placement split."),
        (("--tp-size", "3", "--proxy-placement", "split"), "3 ranks can't be divided into two equal parts",
         "The nearest that works: --tp-size 3 --proxy-placement dedicated."),
        (("--proxy-placement", "everywhere"), "invalid choice: 'everywhere'", "shared"),
    ],
)  # fmt: skip
def test_a_placement_that_does_not_work_is_refused_with_one_that_does(triple, flags, why, instead):
    assert_refused(command(triple.base, (triple.expert, triple.amateur), *flags), why, instead)


def test_a_missing_checkpoint(triple, tmp_path):
    assert_refused(command(triple.base, (tmp_path / "nowhere", triple.amateur)), "the expert's config", "nowhere")


def test_a_missing_weight_file(triple, copy_of):
    """Found only when the scheduler loads it."""
    amateur = copy_of(triple.amateur)
    (amateur / "model.safetensors").unlink()
    assert_refused(command(triple.base, (triple.expert, amateur), *COMMON), "Cannot find any model weights")


def test_a_mismatching_tokenizer(triple, copy_of):
    expert = copy_of(triple.expert)
    tokenizer = json.loads((expert / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    first, second = sorted(vocab, key=vocab.get)[70:72]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (expert / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert_refused(command(triple.base, (expert, triple.amateur)), "differ in 2 ids: 70 is", "71 is", "to the expert")


def test_a_mismatching_image_processor(triple, copy_of):
    amateur = copy_of(triple.amateur)
    edit_json(amateur / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    assert_refused(command(triple.base, (triple.expert, amateur)), "image processor", "image_mean", "amateur")


def test_a_mismatching_vision_tower(triple, copy_of):
    expert = copy_of(triple.expert)
    edit_json(expert / "config.json", vision_config__spatial_merge_size=1)
    assert_refused(command(triple.base, (expert, triple.amateur)), "spatial_merge_size is 2 and 1")


def test_a_head_too_narrow_for_the_tokenizer(triple, copy_of):
    expert = copy_of(triple.expert)
    edit_json(expert / "config.json", vocab_size=100)
    assert_refused(command(triple.base, (expert, triple.amateur)), "output head has 100 rows")


def test_upstream_that_nobody_read(triple, tmp_path):
    """A record that differs from the installed SGLang."""
    sabotage = (
        "import dataclasses\n"
        "record = dataclasses.replace(patches.RECORDS[0], checked={'0.5.17': 'another'})\n"
        "patches.RECORDS = (record, *patches.RECORDS[1:])"
    )
    arguments = sabotaged(tmp_path, sabotage, command(triple.base, (triple.expert, triple.amateur)))
    assert_refused(arguments, "not one that sgl-proxythinker was checked with", "new body", "read it")


def test_schedulers_without_our_hooks(triple, tmp_path):
    """The scheduler process is sound and plain: it would serve the base under our name."""
    sabotage = "patches.STAGES['scheduler'] = ()"
    arguments = sabotaged(tmp_path, sabotage, command(triple.base, (triple.expert, triple.amateur), *COMMON))
    assert_refused(arguments, "rank 0 reports proxy='nothing'", "base model under our name")


TWO_HOSTS = (*COMMON, "--tp-size", "2", "--nnodes", "2", "--proxy-placement", "split")


def test_hosts_that_would_serve_different_models_are_both_told(triple):
    """No rank is started, and so nothing hangs."""
    [(first, _), (second, _)] = nodes_of(command(triple.base, (triple.expert, triple.amateur), *TWO_HOSTS))
    swapped = {str(triple.expert): str(triple.amateur), str(triple.amateur): str(triple.expert)}
    second = [swapped.get(part, part) for part in second]
    for code, output in launch_nodes_and_wait([first, [*second, "--proxy-alpha", "0.75"]]):
        assert code != 0 and "Init torch distributed" not in output, output[-3000:]
        assert "Traceback" not in output, "a person needs the sentence alone"
        assert "the nodes of this server would not serve the same: --proxy-alpha: 0.5 on node 0 (" in output
        assert "the expert's model.safetensors is not the same file in " in output


@pytest.mark.rare
def test_a_plain_sglang_on_another_host_is_found(triple):
    """It is on a CPU by the plugin's support for it; of what it serves it says nothing."""
    [(first, _), _] = nodes_of(command(triple.base, (triple.expert, triple.amateur), *TWO_HOSTS))
    meet_at = first[first.index("--dist-init-addr") + 1]
    plain = command(triple.base, None, *COMMON, "--tp-size", "2", "--nnodes", "2", "--node-rank", "1")
    results = launch_nodes_and_wait([first, [*plain, "--dist-init-addr", meet_at]])
    assert all(code != 0 and "fired up" not in output for code, output in results)
    assert (
        f"a process has joined --dist-init-addr {meet_at} that is none of this server's, while node 1" in results[0][1]
    )


@pytest.mark.rare
def test_schedulers_without_our_hooks_on_another_host(triple, tmp_path):
    """Ours wait for their word before they join. Theirs would take part in other collectives, and all would hang."""
    [(first, _), (second, _)] = nodes_of(command(triple.base, (triple.expert, triple.amateur), *TWO_HOSTS))
    sabotage = "patches.STAGES['scheduler'] = ()"
    results = launch_nodes_and_wait([first, sabotaged(tmp_path, sabotage, second)])
    assert all(code != 0 and "fired up" not in output for code, output in results)
    assert "that is none of this server's, while rank 1 of 2 had not said" in results[0][1], results[0][1][-3000:]
    assert "node 0 (" in results[1][1], "the other host says whose fault it heard of"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("--tp-size", "3", "--nnodes", "2", "--dist-init-addr", "127.0.0.1:29500"), "near and works: 2 or 4"),
        (("--tp-size", "2", "--nnodes", "2"), "--nnodes 2 without --dist-init-addr"),
    ],
)
def test_flags_of_nodes_that_can_not_be(triple, flags, name):
    assert_refused(command(triple.base, (triple.expert, triple.amateur), *flags), name)


@pytest.mark.parametrize(
    ("target", "fragments"),
    [
        ("tokenizer_manager", ("is not hooked", "does not start")),
        # The flags' other half: accepted but not taken, they would be ignored.
        ("from_cli_args", ("unrecognized arguments: --plugin",)),
    ],
)
def test_a_hook_that_does_not_apply(triple, tmp_path, target, fragments):
    """SGLang logs it and goes on; we don't."""
    sabotage = (
        "from sglang.srt.plugins.hook_registry import HookRegistry\n"
        "apply = HookRegistry._apply_target\n"
        "def fail(target, hooks):\n"
        f"    if {target!r} in target:\n"
        "        raise AttributeError('gone')\n"
        "    apply(target, hooks)\n"
        "HookRegistry._apply_target = staticmethod(fail)"
    )
    arguments = sabotaged(tmp_path, sabotage, command(triple.base, (triple.expert, triple.amateur)))
    assert_refused(arguments, *fragments)
