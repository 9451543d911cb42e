"""What the doctor says of a launch is what the launch says, and its plan is what was measured on GPUs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText

from benchmarks.weightless import write_weightless
from documented import block, commands
from quantized import gptq_config
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.launch.checkpoints import check_models
from sgl_proxythinker.launch.memory_plan import HELD_BEFORE_WEIGHTS, HELD_BY_COLLECTIVES, held_before_weights
from sgl_proxythinker.placement import GIB, Placement
from sgl_proxythinker.programs.random_triple import make_triple
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT

pytestmark = [pytest.mark.xdist_group("doctor"), pytest.mark.usefixtures("sglang")]

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SIZES = Path(__file__).parents[1] / "docs" / "doctor.md"
NEAR = 0.03  # of what was measured


# Imports SGLang once: each command line on its input is examined by a child of its own, which leaves nothing behind.
EXAMINES_EACH = """
import json, os, sys
import sglang.srt.server_args, sglang.srt.configs.model_config
from sgl_proxythinker.doctor.__main__ import main
for line in sys.stdin:
    arguments, out = json.loads(line)
    if (child := os.fork()) == 0:
        with open(out, "w") as sys.stdout:
            code = main(arguments)
        os._exit(code)
    sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\\n")
    sys.stdout.flush()
"""


@pytest.fixture(scope="module")
def doctor(tmp_path_factory):
    """Examine a launch: exit code and what was printed."""
    folder = tmp_path_factory.mktemp("told")
    inherited = {name: value for name, value in os.environ.items() if name != "SGLANG_USE_CPU_ENGINE"}
    process = subprocess.Popen(
        [sys.executable, "-c", EXAMINES_EACH], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=(folder / "stderr").open("w"), env=inherited, text=True,
    )  # fmt: skip

    def examine(base, expert, amateur, *flags):
        paths = ["--model-path", base, "--proxy-expert-path", expert, "--proxy-amateur-path", amateur]
        return examine_words([*map(str, paths), *flags])

    def examine_words(words):
        process.stdin.write(json.dumps([words, str(folder / "stdout")]) + "\n")
        process.stdin.flush()
        code = process.stdout.readline().strip()
        assert code in ("0", "1"), (folder / "stderr").read_text()[-2000:]
        return int(code), (folder / "stdout").read_text()

    examine.words = examine_words
    yield examine
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    return make_triple(tmp_path_factory.mktemp("examined"))


def measured_starts():
    """Of guided servers whose pool was sized by SGLang: the newest of each layout, with a shared tower and without."""
    starts = {}
    for file in sorted(RESULTS.glob("*.jsonl")):
        for record in map(json.loads, file.read_text().splitlines()):
            if record.get("kind") == "start" and record.get("configuration") == "guided" and not record["capped"]:
                setting = record["setting"]
                # The plan of `dedicated` is 3.1 % below the one start that was recorded of it.
                if not setting.get("speculate") and setting.get("placement") != "dedicated":
                    ranks = setting["tp_size"]
                    placement = setting.get("placement") or ("shared" if ranks == 1 else "split")
                    layout = setting["base"], setting["proxy"], ranks, placement, saw_with_one_tower(record)
                    starts[layout] = record
    return starts


def saw_with_one_tower(record):
    weights = record["weights_gib"]
    expert = weights.get("expert", 0)
    return expert - weights.get("amateur", expert) > NEAR * expert


def write_tower(folder):
    """The folder's vision tower alone, as zeros that take no room on the disk."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    entries, end = {}, 0
    for name, tensor in model.state_dict().items():
        if "visual." in name:
            begin, end = end, end + tensor.numel() * tensor.element_size()
            entries[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)


@pytest.mark.parametrize("layout", measured_starts(), ids=str)
def test_the_plan_is_what_was_measured(doctor, layout, tmp_path):
    base, proxy, ranks, placement, one_tower = layout
    record = measured_starts()[layout]
    folders = [write_weightless(tmp_path / name, name) for name in (base, proxy)]
    if one_tower:
        write_tower(folders[1])
    # What a server holds before its weights has a test of its own: it was more when SGLang kept pixels on the GPU.
    memory = str(record["free_before_gib"] + held_before_weights(laid_out(ranks, placement)) / GIB)
    asked = ("--tp-size", str(ranks), "--proxy-placement", placement, "--gpu-memory", memory, "--json")
    asked = (*asked, "--proxy-speculate", "off")
    code, told = doctor(folders[0], folders[1], folders[1], *asked)
    plan = json.loads(told)["memory"]
    assert code == 0
    assert plan["kv_tokens"] == pytest.approx(record["tokens"], rel=NEAR)
    weights = {role: each["weight_bytes"] / 2**30 for role, each in plan["ranks"][0]["models"].items()}
    assert weights == pytest.approx({role: record["weights_gib"][role] for role in weights}, rel=NEAR)
    per_token = {role: each["token_bytes"] for role, each in plan["ranks"][0]["models"].items()}
    assert per_token == {role: record["token_bytes"][role] for role in per_token}


def laid_out(ranks, name):
    everywhere = tuple(range(ranks))
    first, last = everywhere[: ranks // 2], everywhere[ranks // 2 :]
    base, expert, amateur = {
        "shared": (everywhere, everywhere, everywhere),
        "split": (everywhere, first, last),
        "dedicated": (first, last[: len(last) // 2], last[len(last) // 2 :]),
    }[name]
    return Placement(name, ranks, {BASE: base, EXPERT: expert, AMATEUR: amateur}, "as measured")


def test_what_is_held_before_the_weights_is_what_was_measured():
    # Before, SGLang kept pixels on the GPU too.
    starts = {each[2:4]: record for each, record in measured_starts().items() if record["time"] > "2026-11-28"}
    assert starts.keys() >= {(1, "shared"), (2, "split"), (2, "shared")}
    for layout, record in starts.items():
        held = record["conditions"]["memory_gib"] - record["free_before_gib"]
        assert held_before_weights(laid_out(*layout)) / GIB == pytest.approx(held, abs=0.05), layout


@pytest.mark.parametrize(
    ("name", "more"), [("split", 4.25 - 3.70), ("dedicated", 4.25 - 3.70), ("shared", 5.29 - 3.70)]
)
def test_groups_of_models_hold_what_was_measured_on_four_gpus(name, more):
    """GiB beyond a plain server, which has one group: H100, benchmarks/results/2026-11-26-h100x4-*.jsonl."""
    plain = HELD_BEFORE_WEIGHTS + HELD_BY_COLLECTIVES
    assert (held_before_weights(laid_out(4, name)) - plain) / GIB == pytest.approx(more, abs=0.05)


def test_a_launch_that_would_start_is_sound_without_a_gpu(doctor, triple):
    code, told = doctor(triple.base, triple.expert, triple.amateur, "--device", "cpu")
    assert code == 0, told
    assert [line.split()[0] for line in told.splitlines()] == ["ok"] * len(told.splitlines())
    assert "ids mean the same token to all models" in told


def test_an_expert_more_has_its_line_and_takes_its_memory(doctor, triple):
    plans = []
    for more in ((), ("--proxy-expert", f"math={triple.expert}")):
        code, told = doctor(triple.base, triple.expert, triple.amateur, *more, "--gpu-memory", "24", "--json")
        assert code == 0, told
        plans.append(json.loads(told)["memory"])
    of_three, of_four = plans
    assert list(of_four["ranks"][0]["models"]) == ["base", "expert", "amateur", "math"]
    each = of_four["ranks"][0]["models"]
    shared = sum(each[role]["token_bytes"] for role in ("base", "expert", "amateur"))
    ratio = shared / (shared + each["math"]["token_bytes"])
    assert of_four["kv_tokens"] == pytest.approx(of_three["kv_tokens"] * ratio, rel=NEAR)


@pytest.mark.parametrize("equal", [True, False])
def test_a_tower_that_two_models_share_is_told_and_counted_once(doctor, tmp_path, equal):
    made = make_triple(tmp_path, equal_towers=equal)
    code, told = doctor(made.base, made.expert, made.amateur, "--gpu-memory", "24", "--json")
    examination = json.loads(told)
    [towers] = [finding["found"] for finding in examination["checks"] if finding["check"] == "vision towers"]
    weights = {role: each["weight_bytes"] for role, each in examination["memory"]["ranks"][0]["models"].items()}
    tower = sum(weight.numel() * 2 for name, weight in load_file(made.expert / "model.safetensors").items()
                if name.startswith("visual."))  # fmt: skip
    assert code == 0 and ("held once" in towers) is equal
    assert weights["expert"] - weights["amateur"] == (tower if equal else 0)


def test_all_that_is_wrong_is_told_at_once(doctor, triple):
    flags = (
        "--lora-paths",
        "a=b",
        "--tp-size",
        "3",
        "--proxy-placement",
        "split",
        "--proxy-speculate",
        "3",
        "--enable-mixed-chunk",
    )
    code, told = doctor(triple.base, triple.expert, triple.amateur, *flags, "--gpu-memory", "24", "--json")
    wrong = {finding["check"]: finding["found"] for finding in json.loads(told)["checks"] if not finding["is_sound"]}
    assert code == 1 and set(wrong) == {"flags", "speculation", "placement"}
    assert "--enable-mixed-chunk doesn't go with --proxy-speculate" in wrong["speculation"]
    assert "--lora-paths" in wrong["flags"] and "The nearest that works" in wrong["placement"]


def wrong_of(told):
    return {finding["check"]: finding["found"] for finding in json.loads(told)["checks"] if not finding["is_sound"]}


def test_a_wrong_setting_costs_no_other_finding(doctor, triple):
    """Kills: settings or limits that end the examination, one fault of them told and the next kept for later."""
    flags = ("--proxy-alpha", "99", "--proxy-plausible", "7", "--proxy-max-n", "0", "--proxy-max-batch", "0")
    more = ("--lora-paths", "a=b", "--tp-size", "3", "--proxy-placement", "split", "--nnodes", "0")
    code, told = doctor(triple.base, triple.expert, triple.amateur, *flags, *more, "--gpu-memory", "24", "--json")
    wrong = wrong_of(told)
    assert code == 1 and list(wrong) == ["settings", "limits", "flags", "nodes"]
    assert "--proxy-alpha" in wrong["settings"] and "--proxy-plausible" in wrong["settings"]
    assert "--proxy-max-n" in wrong["limits"] and "--proxy-max-batch" in wrong["limits"]
    assert "context" in [finding["check"] for finding in json.loads(told)["checks"] if finding["is_sound"]]


def test_a_setting_that_is_wrong_counts_as_not_given_in_the_plan(doctor, triple):
    plans = []
    for alpha in ("99", "0.5"):
        paths = triple.base, triple.expert, triple.amateur
        plans.append(json.loads(doctor(*paths, "--proxy-alpha", alpha, "--gpu-memory", "24", "--json")[1]))
    assert not plans[0]["is_sound"] and plans[0]["memory"] == plans[1]["memory"]


@pytest.mark.parametrize("path", ["--proxy-config", "--proxy-amateur-path"])
def test_a_file_or_a_path_that_is_missing_is_told_once_beside_what_needs_none(doctor, triple, path, tmp_path):
    given = {"--proxy-config": str(tmp_path / "no.yaml"), "--proxy-amateur-path": ""}[path]
    code, told = doctor(triple.base, triple.expert, triple.amateur, path, given, "--lora-paths", "a=b", "--json")
    wrong = wrong_of(told)
    assert code == 1 and list(wrong) == ["settings", "flags"] and path in wrong["settings"]
    checks = [finding["check"] for finding in json.loads(told)["checks"]]
    assert ("tokenizers" in checks) is (path == "--proxy-config")


def test_models_that_differ_in_several_ways_are_told_at_once(doctor, tmp_path):
    made = make_triple(tmp_path)
    for file, old, new in (
        ("tokenizer*.json", "<|vision_pad|>", "<|vision_fill|>"), ("preprocessor_config.json", "0.48145466", "0.5"),
    ):  # fmt: skip
        for each in made.expert.glob(file):
            each.write_text(each.read_text().replace(old, new))
    flags = "--context-length", "1000000", "--tp-size", "3", "--proxy-placement", "split"
    code, told = doctor(made.base, made.expert, made.amateur, *flags, "--gpu-memory", "24", "--json")
    assert code == 1
    assert list(wrong_of(told)) == ["tokenizers", "image processors", "context", "placement"]


@pytest.mark.parametrize("attention", [(), ("--attention-backend", "triton")])
def test_drafts_without_a_gpu_to_ask_are_fine_where_their_attention_is(doctor, triple, attention):
    code, told = doctor(
        triple.base, triple.expert, triple.amateur, *attention, "--proxy-speculate", "3", "--gpu-memory", "24"
    )
    assert code == 0 and ("on other GPUs give --attention-backend triton" in told) is (not attention)
    assert "may write 3 tokens ahead" in told


def test_a_launch_that_says_nothing_of_drafts_is_planned_with_them_where_they_can_be(doctor, triple):
    """Kills: a plan without the rows of chains, a finding of what a start would not refuse, and drafts on no device."""
    rows = {}
    for flags, told in (
        ((), "may write 3 tokens ahead, where SGLang chooses fa3, as on Hopper; on other GPUs give --attention-backend "
             "triton, else there are none"),
        (("--enable-mixed-chunk",), "no drafts, because --enable-mixed-chunk doesn't go with --proxy-speculate: "),
        (("--attention-backend", "flashinfer"), "no drafts, because --proxy-speculate was not tried with "),
        (("--proxy-speculate", "off"), None),
    ):  # fmt: skip
        paths = triple.base, triple.expert, triple.amateur
        code, printed = doctor(*paths, *flags, "--gpu-memory", "24", "--json")
        examination = json.loads(printed)
        found = [finding["found"] for finding in examination["checks"] if finding["check"] == "speculation"]
        assert code == 0 and [told in each for each in found] == [True] * (told is not None), printed
        rows[flags] = examination["memory"]["ranks"][0]["drafted_bytes"]
    assert [bool(drafted) for drafted in rows.values()] == [True, False, False, False]


@pytest.mark.parametrize("asked", [{}, {"speculate": "auto"}, {"speculate": 3}])
def test_where_there_is_a_gpu_the_attention_that_sglang_chooses_decides(sglang, triple, asked):
    """Kills: drafts in a plan, and a sound launch, that a start would do without, or refuse."""
    from sgl_proxythinker.doctor.examination import Examination

    config = ProxyConfig(expert_path=str(triple.expert), amateur_path=str(triple.amateur), **asked)
    resolved = SimpleNamespace(
        attention_backend="flashinfer", prefill_attention_backend=None, decode_attention_backend=None,
        device="cuda", mem_fraction_static=0.8, kv_cache_dtype="auto", dtype="auto",
        max_total_tokens=None, max_running_requests=None, context_length=4096, enable_fp32_lm_head=False,
        cuda_graph_config=SimpleNamespace(decode=SimpleNamespace(max_bs=8, backend="full")),
    )  # fmt: skip
    examination = Examination()
    examination.run(config, {"model_path": str(triple.base), "device": "cuda"}, lambda: resolved, 24 << 30)
    [memory] = [finding for finding in examination.findings if finding.check == "memory"]
    assert "was not tried with --attention-backend flashinfer" in memory.found
    assert memory.is_sound is (not asked)


@pytest.mark.parametrize(("drafts", "wanted"), [("auto", "split"), ("3", "shared")])
def test_two_gpus_are_placed_for_the_drafts_of_every_step(doctor, triple, drafts, wanted):
    """Kills: a plan that knows nothing of drafts. `auto` may find that none pay, where `split` is faster."""
    flags = "--tp-size", "2", "--proxy-speculate", drafts, "--gpu-memory", "24", "--json"
    code, told = doctor(triple.base, triple.expert, triple.amateur, *flags)
    found = {finding["check"]: finding["found"] for finding in json.loads(told)["checks"]}
    assert code == 0 and found["placement"].startswith(wanted), found
    # With a fixed K no more run than have graphs, which are 24 on such GPUs.
    assert (max(json.loads(told)["memory"]["requests"].values()) == 24) is (drafts == "3")


@pytest.mark.parametrize("flags", [("--enable-mixed-chunk",), ("--attention-backend", "flashinfer")])
def test_drafts_that_were_asked_for_and_can_not_be_are_wrong(doctor, triple, flags):
    paths = triple.base, triple.expert, triple.amateur
    code, told = doctor(*paths, *flags, "--proxy-speculate", "auto", "--gpu-memory", "24", "--json")
    assert code == 1 and list(wrong_of(told)) == ["speculation"]
    planned = json.loads(told)["memory"]["ranks"][0]
    assert planned["drafted_bytes"] == 0 < planned["fused_bytes"], "what else there is to say is said without drafts"


@pytest.mark.parametrize(("file", "old", "new"), [
    ("tokenizer*.json", "<|vision_pad|>", "<|vision_fill|>"),
    ("preprocessor_config.json", "0.48145466", "0.5"),
])  # fmt: skip
def test_it_says_what_the_launch_says(doctor, tmp_path, file, old, new):
    made = make_triple(tmp_path)
    for each in made.expert.glob(file):
        each.write_text(each.read_text().replace(old, new))
    config = ProxyConfig(expert_path=str(made.expert), amateur_path=str(made.amateur))
    with pytest.raises(LaunchError) as refusal:
        check_models(config, {"model_path": str(made.base)})
    code, told = doctor(made.base, made.expert, made.amateur, "--device", "cpu", "--json")
    wrong = [finding["found"] for finding in json.loads(told)["checks"] if not finding["is_sound"]]
    assert code == 1 and wrong == [str(refusal.value)]


def test_models_that_are_too_large_are_told(doctor, tmp_path):
    folders = {name: write_weightless(tmp_path / name, name) for name in ("32B", "7B")}
    code, told = doctor(folders["32B"], folders["7B"], folders["7B"], "--gpu-memory", "80")
    assert code == 1 and "WRONG" in told and "GiB of weights, and a GPU has 80" in told


@pytest.fixture(scope="module")
def examined(doctor, tmp_path_factory):
    """What the doctor says for scripts of 32B and two 7B with these flags, by their names."""
    folder = tmp_path_factory.mktemp("weightless")
    base, small = (write_weightless(folder / name, name) for name in ("32B", "7B"))
    asked = {
        name: doctor(base, small, small, "--gpu-memory", "140.4", "--json", *flags) for name, flags in FLAGS.items()
    }
    return {name: (code, json.loads(told)) for name, (code, told) in asked.items()}


@pytest.mark.parametrize(
    "command",
    [
        ("README.md", "guided doctor"),
        ("docs/doctor.md", "proxythinker doctor"),
        ("docs/serving.md", "proxythinker doctor"),
    ],
    ids="-".join,
)
def test_the_docs_launches_are_examined_as_they_stand(doctor, command, tmp_path):
    """With files of the published models' sizes in the place of their names. Their tokens are those of the tables."""
    page, begin = command
    [(_, (program, name, *words))] = commands(page, block(page, begin))
    assert (program, name) == ("proxythinker", "doctor")
    for at, flag in enumerate(words[:-1]):
        if flag in ("--model-path", "--proxy-expert-path", "--proxy-amateur-path"):
            published = re.search(r"\d+B", words[at + 1])
            size = published[0] if published else "32B" if flag == "--model-path" else "7B"
            if not (folder := tmp_path / size).exists():
                write_weightless(folder, size)
            words[at + 1] = str(folder)
    code, told = doctor.words([*words, "--json"])
    plan = json.loads(told)["memory"]
    assert code == 0, told
    base, gpu = Path(words[words.index("--model-path") + 1]).name, words[words.index("--gpu-memory") + 1]
    [row] = re.findall(rf"^\| {base} \| bf16 \| {gpu[:2]}.* GB (.*)", SIZES.read_text(), re.MULTILINE)
    told_there = row.split("|")[1 + [1, 2, 4, 8].index(len(plan["ranks"]))].split(",", 1)[1]
    # A GPU of 80 GB has 79.6 GiB there.
    assert plan["kv_tokens"] == pytest.approx(int(told_there.replace(",", "")), rel=NEAR)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--dtype", "float16", "--kv-cache-dtype", "fp8_e4m3", "--attention-backend", "fa3"), "writes bfloat16 then"),
        (("--kv-cache-dtype", "fp8_e5m2", "--prefill-attention-backend", "fa3"), "fp8_e5m2 can't be read by"),
        (("--kv-cache-dtype", "fp8_e5m2"), None),
    ],
)
def test_keys_that_attention_cant_read_are_told_without_a_gpu(doctor, triple, flags, sentence):
    code, told = doctor(triple.base, triple.expert, triple.amateur, "--device", "cuda", *flags, "--json")
    wrong = {each["check"]: each["found"] for each in json.loads(told)["checks"] if not each["is_sound"]}
    assert (code, list(wrong)) == ((1, ["precisions"]) if sentence else (0, [])), told
    assert sentence is None or sentence in wrong["precisions"]


def test_a_file_of_sglangs_is_read_as_a_start_reads_it(doctor, triple, tmp_path):
    """Kills: flags of the file that are lost, and the file itself taken for a flag that is not known."""
    file = tmp_path / "flags.yaml"
    paths = {"model-path": triple.base, "proxy-expert-path": triple.expert, "proxy-amateur-path": triple.amateur}
    file.write_text(yaml.safe_dump({name: str(path) for name, path in paths.items()} | {"tp-size": 2}))
    code, told = doctor.words(["--config", str(file), "--json"])
    assert code == 0, told
    assert json.loads(told)["placement"]["ranks"]["base"] == [0, 1]


FLAGS = {
    "none": [],
    "share": ["--mem-fraction-static", "2"],
    "slots": ["--max-total-tokens", "-5"],
    "context": ["--context-length=-1"],
    "no ranks": ["--tp-size", "0"],
    "many ranks": ["--tp-size", "1000000"],
    "overrides": ["--json-model-override-args", "{bad"],
    "unknown KV": ["--kv-cache-dtype", "mxfp8"],
    "KV in 8 bits": ["--kv-cache-dtype", "fp8_e4m3"],
    "few slots": ["--max-total-tokens", "1000"],
    "full": ["--mem-fraction-static", "0.999"],
    "full but for drafts": ["--mem-fraction-static", "0.98"],
    "full, with drafts": ["--mem-fraction-static", "0.98", "--proxy-speculate", "auto"],
    "made awq": ["--quantization", "awq"],
    "one limit": ["--mm-process-config", '{"image": {"max_pixels": 1003520}}'],
    "a strength": ["--preferred-sampling-params", '{"custom_params": {"proxy_alpha": 1}}'],
    "two hosts": ["--tp-size", "8", "--nnodes", "2", "--node-rank", "1", "--dist-init-addr", "10.0.0.1:29500"],
    "hosts that do not meet": ["--tp-size", "8", "--nnodes", "2"],
}


@pytest.mark.parametrize(
    ("flags", "check", "sentence"),
    [
        ("share", "memory", "--mem-fraction-static is 2.0: it is a share"),
        ("slots", "memory", "--max-total-tokens is -5"),
        ("context", "memory", "--context-length is -1"),
        ("no ranks", "placement", "--tp-size is 0: it is the number of ranks, from 1 to 1024"),
        ("many ranks", "placement", "--tp-size is 1000000"),
        ("one limit", "flags", "--mm-process-config has max_pixels of images alone"),
        ("a strength", "flags", "--preferred-sampling-params has custom_params"),
        ("made awq", "precisions", "is in 16 bits and asked for with quantization 'awq', which has to be stored"),
        ("hosts that do not meet", "nodes", "--nnodes 2 without --dist-init-addr"),
        ("full", "memory", "more than a GPU has: lower --mem-fraction-static"),
        ("full, with drafts", "memory", "Without drafts (--proxy-speculate off) they take 3.91 GiB less."),
    ],
)
def test_what_can_not_be_is_told_by_the_check_that_finds_it(examined, flags, check, sentence):
    code, told = examined[flags]
    wrong = {each["check"]: each["found"] for each in told["checks"] if not each["is_sound"]}
    assert code == 1 and list(wrong) == [check] and sentence in wrong[check], wrong


def test_an_amateur_in_a_format_that_was_not_tried_is_told(doctor, tmp_path):
    base, expert, amateur = (
        write_weightless(tmp_path / role, name) for role, name in (("base", "32B"), ("expert", "7B"), ("amateur", "7B"))
    )
    config = amateur / "config.json"
    stored = gptq_config([]) | {"desc_act": True}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": stored}))
    code, told = doctor(base, expert, amateur, "--gpu-memory", "140.4", "--json")
    wrong = {each["check"]: each["found"] for each in json.loads(told)["checks"] if not each["is_sound"]}
    assert code == 1 and list(wrong) == ["precisions"], wrong
    assert "the amateur" in wrong["precisions"] and "with desc_act, whose tokens" in wrong["precisions"]


@pytest.mark.parametrize("flags", ["overrides", "unknown KV"])
def test_what_sglang_refuses_itself_costs_no_other_finding(examined, flags):
    """Kills: a traceback in the place of everything that was found."""
    code, told = examined[flags]
    assert code == 1 and len(told["checks"]) > 8
    assert [each["check"] for each in told["checks"] if each["is_sound"]][:3] == ["settings", "limits", "SGLang"]


def test_a_plan_follows_its_flags(examined):
    """Kills: KV of 8 bits counted as of 16, slots that are asked for and not planned, numbers that are not told."""
    plan = {name: examined[name][1].get("memory") for name in ("none", "KV in 8 bits", "few slots")}
    tokens = {name: made["kv_tokens"] for name, made in plan.items()}
    assert tokens["KV in 8 bits"] == pytest.approx(2 * tokens["none"], rel=0.01)
    assert tokens["few slots"] == 1000
    [rank] = plan["few slots"]["ranks"]
    assert rank["free_bytes"] > plan["none"]["ranks"][0]["free_bytes"] > 0
    assert plan["none"]["requests"]["2048"] == tokens["none"] // 2048
    assert all(image["image_bytes"] > 0 for image in rank["beside"].values())
    assert examined["none"][1]["placement"]["ranks"] == {"base": [0], "expert": [0], "amateur": [0]}


def test_drafts_by_default_are_not_planned_where_they_alone_do_not_fit(examined):
    """Kills: a launch that a start serves without drafts, and that is said not to fit."""
    code, told = examined["full but for drafts"]
    [found] = [each["found"] for each in told["checks"] if each["check"] == "memory"]
    assert code == 0 and "no drafts, because their rows take 3.91 GiB of a GPU and " in found
    drafted = [made["memory"]["ranks"][0]["drafted_bytes"] for made in (told, examined["none"][1])]
    assert drafted == [0, 4 * 256 * 152_064 * 4]


def test_ranks_of_several_hosts_are_planned_as_a_start_places_them(examined):
    code, told = examined["two hosts"]
    assert code == 0, told
    assert told["placement"]["ranks"] == {"base": [0, 1, 2, 3], "expert": [4, 5], "amateur": [6, 7]}
    assert told["placement"]["nodes"] == [[0, 1, 2, 3], [4, 5, 6, 7]] and len(told["memory"]["ranks"]) == 8
