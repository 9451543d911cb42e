"""What guidance costs over the plain base: decode steps, prefill, and KV tokens, in one run on one machine.

    python -m benchmarks.guided_cost --base 32B --proxy 7B --batches 1,8,32,64 --out results.jsonl
    python -m benchmarks.guided_cost --tp-size 4 --placement split --only plain-base --only guided --out results.jsonl
    python -m benchmarks.guided_cost --tp-size 4 --placement shared --only guided --out results.jsonl
    python -m benchmarks.guided_cost --report results.jsonl                                      # only the tables
    python -m benchmarks.guided_cost --base tiny --proxy tiny --cpu --batches 1,2 --input-len 16 --output-len 16 \\
        --prefill 2x64 --out results/rehearsal.jsonl

Three engines, one after the other and each in a process of its own: the plain base, the plain proxy, and the base
guided by two such proxies. The guided one also decodes batches whose requests are all at alpha 0, which may cost 3 %
more than the plain base, and batches of which half is at alpha 0, where guidance may cost what it costs that half
alone, and 3 %. Weights are random (`benchmarks.weightless`), dimensions real. Every measurement is a line of --out with
its conditions. With --speculate a step's time is that of a token; --acceptance 1 times whole cycles of K + 1 tokens.
Tables compare the newest guided lines with the newest plain ones of the same machine, commit and settings, whatever run
they come from. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import forced_acceptance
from benchmarks.conditions import ask_conditions, query_gpus
from benchmarks.cost_summary import (
    CONFIGURATIONS,
    SINCE_THE_FIRST,
    ranks_of,
    setting_layout,
    step_ceiling_ms,
    summaries,
)
from benchmarks.engines import Plan, measure_engine, read_memory, read_steps, run_child
from benchmarks.layout import add_arguments, layout_of
from benchmarks.lines import append_line, read_lines
from benchmarks.weightless import BYTES_PER_WEIGHT, DIMENSIONS, write_weightless
from sgl_proxythinker.programs.shared_gpus import share_gpus

forced_acceptance.force_if_asked()  # here: a spawned scheduler imports this module, and runs nothing of it

GIB = 1 << 30
MIXED_FROM = 8  # the smallest batch that is also measured mixed
ALLOWED = 1.03  # what rows at alpha 0 may cost, over a plain base's
ALLOWED_OF_LAWS = 1.02  # what all laws in one batch may cost, over a constant strength


def main() -> None:
    args = parse_arguments()
    if args.child:
        run_engine(args)
        return
    if args.report is None:
        measure(args)
    results = summaries(read_lines("guided_cost", args.report or args.out))
    for result in results:
        print_tables(result)
    print(json.dumps({"name": "guided_cost", "results": results}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guided_cost", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--batches", type=integers, default=(1, 8, 32, 64), metavar="1,8,32,64")
    parser.add_argument("--input-len", type=int, default=256, help="tokens of a prompt")
    parser.add_argument("--output-len", type=int, default=128, help="decode steps that are timed")
    parser.add_argument(
        "--prefill", type=pair, default=(16, 2048), metavar="16x2048", help="prompts x tokens; 0x0: none"
    )
    parser.add_argument(
        "--alpha-zero", type=integers, help="batches also decoded at alpha 0; default: --batches; 0: none"
    )
    parser.add_argument(
        "--mixed",
        type=integers,
        help=f"also decoded with half of the requests at alpha 0; default: batches from {MIXED_FROM} on; 0: none.\n"
        "Their halves are measured as batches of their own, guided and plain",
    )
    parser.add_argument(
        "--laws",
        type=integers,
        default=(),
        metavar="8,64",
        help="batches also decoded with all laws of strength and all cuts among their requests (default: none)",
    )
    parser.add_argument("--sampled", action=argparse.BooleanOptionalAction, default=True, help="also at temperature 1")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--attention-backend", default=None)
    parser.add_argument("--mem-fraction-static", type=float, default=None, help="default: SGLang's choice")
    parser.add_argument("--max-total-tokens", type=int, default=None, help="default: what fits")
    parser.add_argument("--disable-custom-all-reduce", action="store_true")
    parser.add_argument(
        "--gpu-of-rank",
        type=gpu_numbers,
        metavar="0,1,1",
        help="GPUs of the guided engine's ranks, which may share one (programs.shared_gpus): for want of GPUs",
    )
    parser.add_argument(
        "--speculate", type=drafts, metavar="K|auto", help="drafts of the guided engine (default: none)"
    )
    parser.add_argument(
        "--acceptance",
        type=probabilities,
        default=(),
        metavar="P,P...",
        help="of each draft, forced: random weights accept next to nothing. All batches are decoded at each in turn",
    )
    parser.add_argument("--cpu", action="store_true", help="float32 on the CPU, to rehearse")
    parser.add_argument("--only", choices=CONFIGURATIONS, action="append", help="repeat for more; default: all three")
    parser.add_argument("--out", type=Path, default=Path("results/guided_cost.jsonl"), help="JSON lines, appended")
    parser.add_argument("--models", type=Path, default=Path("models/weightless"), help="where checkpoints are written")
    parser.add_argument("--commit", default=None, help="default: git's, else $COMMIT")
    parser.add_argument("--report", type=Path, default=None, metavar="FILE", help="print the tables of FILE and stop")
    parser.add_argument("--child", choices=CONFIGURATIONS, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.acceptance and not args.child:
        forced_acceptance.offer(args.out.with_suffix(".acceptance"))
    if args.gpu_of_rank:
        if len(args.gpu_of_rank) != args.tp_size or args.cpu:
            parser.error(f"--gpu-of-rank names the GPU of each of the {args.tp_size} ranks of --tp-size, not on --cpu")
        # Of all engines: they are to differ in nothing else.
        args.disable_custom_all_reduce = True
    return args


def integers(text: str) -> tuple[int, ...]:
    return tuple(sorted(filter(None, map(int, text.split(",")))))


def drafts(text: str) -> int | str:
    return text if text == "auto" else int(text)


def probabilities(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def gpu_numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def pair(text: str) -> tuple[int, int]:
    requests, tokens = text.split("x")
    return int(requests), int(tokens)


# In the child


def run_engine(args: argparse.Namespace) -> None:
    """Measure one configuration; the parent reads what this prints."""
    from sgl_proxythinker import ProxyConfig

    path = write_weightless(args.models / args.base, args.base)
    proxy = None
    if args.child == "plain-proxy":
        path = write_weightless(args.models / f"{args.proxy}-expert", args.proxy)
    if args.child == "guided":
        if args.gpu_of_rank:
            share_gpus(args.gpu_of_rank)
        expert, amateur = (
            write_weightless(args.models / f"{args.proxy}-{role}", args.proxy) for role in ("expert", "amateur")
        )
        # Older code, which is compared with this one, knows no speculation.
        speculate = {"speculate": args.speculate or "off"} if "speculate" in ProxyConfig.model_fields else {}
        proxy = ProxyConfig(
            expert_path=str(expert), amateur_path=str(amateur), **layout_of(args).proxy_settings(), **speculate
        )
    measure_engine(plan_of(args), proxy, model_path=str(path), **engine_arguments(args))


def plan_of(args: argparse.Namespace) -> Plan:
    alpha_zero = args.batches if args.alpha_zero is None else args.alpha_zero
    mixed = tuple(batch for batch in args.batches if batch >= MIXED_FROM) if args.mixed is None else args.mixed
    return Plan(
        tuple(sorted({*args.batches, *(batch // 2 for batch in mixed)})), args.input_len, args.output_len, args.prefill,
        args.repeats, sampled=args.sampled, alpha_zero=alpha_zero, mixed=mixed, laws=args.laws,
        acceptances=args.acceptance,
    )  # fmt: skip


def engine_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The same for all three configurations, but for the number of ranks."""
    batches = plan_of(args).batches
    optional = {
        "attention_backend": args.attention_backend,
        "mem_fraction_static": args.mem_fraction_static,
        "max_total_tokens": args.max_total_tokens,
        "disable_custom_all_reduce": args.disable_custom_all_reduce or None,
        "cuda_graph_bs_decode": None if args.cpu else list(batches),
        "device": "cpu" if args.cpu else None,
    }
    return {
        "load_format": "dummy",
        "dtype": "float32" if args.cpu else "bfloat16",
        "tp_size": engine_ranks(args, args.child),
        "sampling_backend": "pytorch",
        "disable_radix_cache": True,
        "max_running_requests": max(*batches, args.prefill[0]),
        "skip_server_warmup": True,
        "decode_log_interval": 16,
        "random_seed": 0,
    } | {name: value for name, value in optional.items() if value is not None}


def engine_ranks(args: argparse.Namespace, configuration: str) -> int:
    return {
        "plain-base": args.base_tp_size or args.tp_size,
        "plain-proxy": layout_of(args).proxy_ranks,
        "guided": args.tp_size,
    }[configuration]


# In the parent


def measure(args: argparse.Namespace) -> None:
    """Run the configurations asked for; append one line per measurement to `args.out`."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    where = ask_conditions(args.commit)
    setting = setting_of(args, where)
    print_conditions(where, setting)
    print_ceilings(args, setting, where)
    for configuration in args.only or CONFIGURATIONS:
        common = {
            "benchmark": "guided_cost",
            "setting": setting,
            "conditions": where,
            "configuration": configuration,
        }
        log = args.out.with_suffix(f".{configuration}.log")
        print(f"\n{configuration}: log in {log}", flush=True)
        command = [sys.executable, "-m", "benchmarks.guided_cost", "--child", configuration, *sys.argv[1:]]
        for record in run_child(command, log):
            if record["kind"] == "start":
                record |= kv_account(setting, configuration, record, read_memory(log))
            append_line(args.out, common | record)
            print(" ", brief(record), flush=True)
        for decode, seen in read_steps(log).items():
            append_line(args.out, common | {"kind": "steps", **decode._asdict(), **seen})


def setting_of(args: argparse.Namespace, where: dict[str, Any]) -> dict[str, Any]:
    """Numbers compare, and stand in one table, only where all of this is the same."""
    return {
        "base": args.base,
        "proxy": args.proxy,
        "tp_size": args.tp_size,
        "attention_backend": args.attention_backend or "default",
        "dtype": "float32" if args.cpu else "bfloat16",
        "mem_fraction_static": args.mem_fraction_static,
        "custom_all_reduce": not args.disable_custom_all_reduce,
        "batches": list(args.batches),
        "input_tokens": args.input_len,
        "output_tokens": args.output_len,
        "prefill": list(args.prefill),
        "machine": where["machine"],
        "commit": where["commit"],
    } | {name: getattr(args, name) for name in ("placement", "proxy_tp_size", "base_tp_size", *SINCE_THE_FIRST)}


def kv_account(
    setting: dict[str, Any], configuration: str, start: dict[str, Any], memory: dict[str, Any]
) -> dict[str, Any]:
    """How much of the memory of rank 0 that SGLang may fill is filled with weights and KV.

    SGLang's budget is mem_fraction_static of what was free before the first weight. What weights leave of it, divided
    by the bytes of one token in all of the rank's pools, is the most tokens that the rank can serve.
    """
    width = 2 if setting["dtype"] == "float32" else 1
    shards = ranks_of(setting, configuration)[0]
    token_bytes = width * sum(shard.token_bytes for shard in shards)
    reported = memory.get("token_bytes", {}).get("sum", token_bytes)
    if reported != token_bytes:
        print(
            f"  CHECK: a token is {token_bytes} bytes by the dimensions, {reported} by the start-up table", flush=True
        )
    budget, weights = memory["free_before_gib"] * start["mem_fraction_static"], memory["weights_gib"]["sum"]
    kv = start["tokens"] * token_bytes / GIB
    gpus = query_gpus("memory.used", "memory.free")
    gpus = [gpus[number] for number in sorted({*(setting["gpu_of_rank"] or range(setting["tp_size"]))}) if gpus]
    return memory | {
        "token_bytes_sum": token_bytes,
        "kv_gib": round(kv, 2),
        "budget_gib": round(budget, 2),
        "used_percent": round(100 * (weights + kv) / budget, 2),
        "tokens_that_fit": int((budget - weights) * GIB / token_bytes),
        "gpu_used_gib": [round(int(gpu["memory.used"]) / 1024, 2) for gpu in gpus],
        "gpu_free_gib": [round(int(gpu["memory.free"]) / 1024, 2) for gpu in gpus],
    }


def brief(record: dict[str, Any]) -> str:
    match record["kind"]:
        case "start":
            return (
                f"started in {record['start_s']} s, {record['tokens']:,} KV tokens, weights "
                f"{record['weights_gib']['sum']:.2f} + KV {record['kv_gib']:.2f} of {record['budget_gib']:.2f} GiB"
            )
        case "decode":
            rows = f"batch {record['batch']}, {record['unguided']} at alpha 0, temperature {record['temperature']:g}"
            if record["has_laws"]:
                rows += ", all laws"
            if record["acceptance"] is not None:
                rows += f", acceptance {record['acceptance']:g}"
            return f"{rows}: {record['ms_per_step']} ms/step of {record['runs_ms']}"
        case "prefill":
            return f"prefill: {record['tokens_per_s']:,} tokens/s, {record['runs_s']} s"
    return json.dumps(record)


# Tables


def print_conditions(where: dict[str, Any], setting: dict[str, Any]) -> None:
    print(
        f"{where['device']}, driver {where['driver']}, torch {where['torch']}, sglang {where['sglang']}, python "
        f"{where['python']}, commit {where['commit']}\n"
        f"{setting['base']} guided by two {setting['proxy']}, {setting_layout(setting).describe()}; plain base TP "
        f"{ranks_of(setting, 'plain-base')[0][0].tp_size}; {setting['dtype']}, random weights, attention "
        f"{setting['attention_backend']}, SGLang's defaults for graphs and overlap, prompts of "
        f"{setting['input_tokens']} tokens, {setting['output_tokens']} steps timed",
        flush=True,
    )


def print_ceilings(args: argparse.Namespace, setting: dict[str, Any], where: dict[str, Any]) -> None:
    base, proxy = DIMENSIONS[args.base], DIMENSIONS[args.proxy]
    both = base.step_weight_bytes + 2 * proxy.step_weight_bytes
    print(
        f"a step reads {base.step_weight_bytes / 1e9:.1f} GB of the base's weights and {both / 1e9:.1f} GB of all "
        f"three in {BYTES_PER_WEIGHT}-byte numbers, over all ranks; a copy moves {where['copy_tb_per_s']} TB/s"
    )
    for batch in args.batches:
        plain, guided = (step_ceiling_ms(setting, where, c, batch) for c in ("plain-base", "guided"))
        print(f"  ceiling at batch {batch}: base {plain:.2f} ms, guided {guided:.2f} ms, ratio {guided / plain:.3f}")


def print_tables(result: dict[str, Any]) -> None:
    print()
    print_conditions(result["conditions"], result["setting"])
    print("\nms per decode step")
    print_table(
        ("batch", "temp.", "accepted", "base", "proxy", "guided", "guided/base", "guided/parts", "ceiling",
         "by scheduler", "full batch", "graphs"),
        [
            (row["batch"], row["temperature"], row["acceptance"], row["plain_base_ms"], row["plain_proxy_ms"],
             row["guided_ms"],
             row["guided_over_base"], row["over_parts"], row["ceiling_ms"]["guided"],
             *(" ".join(map(shown, row[name])) for name in ("scheduler_ms", "full_batch_lines", "graph_lines")))
            for row in result["decode"]
        ],
    )  # fmt: skip
    if result["alpha_zero"]:
        print("\nms per decode step, all requests of the guided engine at alpha 0")
        print_table(
            ("batch", "base", "guided engine", "ratio", "to reach"),
            [
                (row["batch"], row["plain_base_ms"], row["guided_engine_ms"], row["over_base"], ALLOWED)
                for row in result["alpha_zero"]
            ],
        )
    if result["mixed"]:
        print("\nms per decode step, k requests guided and m at alpha 0; expected: base(k + m) + guided(k) - base(k)")
        print_table(
            ("k", "m", "base", "guided engine", "expected", "ratio", "to reach"),
            [
                (row["batch"] - row["unguided"], row["unguided"], row["plain_base_ms"], row["guided_engine_ms"],
                 row["expected_ms"], row["over_expected"], ALLOWED)
                for row in result["mixed"]
            ],
        )  # fmt: skip
    if result["laws"]:
        print("\nms per decode step of the guided engine, all laws of strength and cuts in one batch")
        print_table(
            ("batch", "constant", "all laws", "ratio", "to reach"),
            [(row["batch"], row["constant_ms"], row["laws_ms"], row["ratio"], ALLOWED_OF_LAWS)
             for row in result["laws"]],
        )  # fmt: skip
    prefill = result["prefill"]
    if any(prefill["tokens_per_s"]):
        print(f"\nprefill of {prefill['prompts'][0]} prompts of {prefill['prompts'][1]} tokens")
        print_table(
            ("", "base", "proxy", "guided", "guided/base", "guided/parts"),
            [
                ("seconds", prefill["plain_base_s"], prefill["plain_proxy_s"], prefill["guided_s"],
                 prefill["guided_over_base"], prefill["over_parts"]),
                ("tokens/s", *prefill["tokens_per_s"], None, None),
            ],
        )  # fmt: skip
    print("\nmemory of a rank after the start, GiB; the budget is mem_fraction_static of what was free before")
    print_table(
        ("", "tokens", "that fit", "bytes/token", "weights", "KV", "budget", "used %", "GPU still free", "start s"),
        [
            (name, f"{row['tokens']:,}" + " (capped)" * row["capped"], f"{row['tokens_that_fit']:,}",
             f"{row['token_bytes_sum']:,}", row["weights_gib"]["sum"], row["kv_gib"], row["budget_gib"],
             row["used_percent"], " ".join(map(str, row["gpu_free_gib"])), row["start_s"])
            for name, row in result["memory"].items()
        ],
    )  # fmt: skip
    print(flush=True)


def print_table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    table = [header, *(tuple(map(shown, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def shown(value: Any) -> str:
    return "-" if value is None else str(value)


if __name__ == "__main__":
    main()
