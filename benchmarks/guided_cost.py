"""What guidance costs over the plain base: decode steps, prefill, and KV tokens, in one run on one machine.

    python -m benchmarks.guided_cost --base 32B --proxy 7B --batches 1,8,32,64 --out results.jsonl
    python -m benchmarks.guided_cost --base 32B --proxy 7B --only guided --out results.jsonl     # one at a time
    python -m benchmarks.guided_cost --report results.jsonl                                      # only the tables
    python -m benchmarks.guided_cost --base tiny --proxy tiny --cpu --batches 1,2 --input-len 16 --output-len 16 \\
        --prefill 2x64 --out results/rehearsal.jsonl

Three engines, one after the other and each in a process of its own: the plain base, the plain proxy, and the base
guided by two such proxies. Weights are random (`benchmarks.weightless`), dimensions real. Every measurement is a line
of --out with its conditions; tables put together the newest lines of each setting. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.conditions import query_gpus
from benchmarks.engines import Plan, measure_engine, read_memory, read_steps, run_child
from benchmarks.weightless import BYTES_PER_WEIGHT, DIMENSIONS, write_weightless

GIB = 1 << 30
CONFIGURATIONS = ("plain-base", "plain-proxy", "guided")


def main() -> None:
    args = parse_arguments()
    if args.child:
        run_engine(args)
        return
    if args.report is None:
        measure(args)
    results = [summary(group) for group in grouped(read_lines(args.report or args.out)).values()]
    for result in results:
        print_tables(result)
    print(json.dumps({"name": "guided_cost", "results": results}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guided_cost", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--base", choices=DIMENSIONS, default="32B")
    parser.add_argument("--proxy", choices=DIMENSIONS, default="7B")
    parser.add_argument("--batches", type=integers, default=(1, 8, 32, 64), metavar="1,8,32,64")
    parser.add_argument("--input-len", type=int, default=256, help="tokens of a prompt")
    parser.add_argument("--output-len", type=int, default=128, help="decode steps that are timed")
    parser.add_argument(
        "--prefill", type=pair, default=(16, 2048), metavar="16x2048", help="prompts x tokens; 0x0: none"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tp-size", type=int, default=1)
    parser.add_argument("--attention-backend", default=None)
    parser.add_argument("--mem-fraction-static", type=float, default=None, help="default: SGLang's choice")
    parser.add_argument("--disable-custom-all-reduce", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="float32 on the CPU, to rehearse")
    parser.add_argument("--only", choices=CONFIGURATIONS, action="append", help="repeat for more; default: all three")
    parser.add_argument("--out", type=Path, default=Path("results/guided_cost.jsonl"), help="JSON lines, appended")
    parser.add_argument("--models", type=Path, default=Path("models/weightless"), help="where checkpoints are written")
    parser.add_argument("--commit", default=None, help="default: git's, else $COMMIT")
    parser.add_argument("--report", type=Path, default=None, metavar="FILE", help="print the tables of FILE and stop")
    parser.add_argument("--child", choices=CONFIGURATIONS, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def integers(text: str) -> tuple[int, ...]:
    return tuple(sorted(map(int, text.split(","))))


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
        expert, amateur = (
            write_weightless(args.models / f"{args.proxy}-{role}", args.proxy) for role in ("expert", "amateur")
        )
        proxy = ProxyConfig(expert_path=str(expert), amateur_path=str(amateur))
    measure_engine(plan_of(args), proxy, model_path=str(path), **engine_arguments(args))


def plan_of(args: argparse.Namespace) -> Plan:
    return Plan(args.batches, args.input_len, args.output_len, args.prefill, args.repeats)


def engine_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The same for all three configurations."""
    optional = {
        "attention_backend": args.attention_backend,
        "mem_fraction_static": args.mem_fraction_static,
        "disable_custom_all_reduce": args.disable_custom_all_reduce or None,
        "cuda_graph_bs_decode": None if args.cpu else list(args.batches),
        "device": "cpu" if args.cpu else None,
    }
    return {
        "load_format": "dummy",
        "dtype": "float32" if args.cpu else "bfloat16",
        "tp_size": args.tp_size,
        "sampling_backend": "pytorch",
        "disable_radix_cache": True,
        "max_running_requests": max(*args.batches, args.prefill[0]),
        "skip_server_warmup": True,
        "decode_log_interval": 16,
        "random_seed": 0,
    } | {name: value for name, value in optional.items() if value is not None}


# In the parent


def measure(args: argparse.Namespace) -> None:
    """Run the configurations asked for; append one line per measurement to `args.out`."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    where = ask_conditions(args.commit)
    print_conditions(where, setting_of(args, where))
    print_ceilings(args, where)
    for configuration in args.only or CONFIGURATIONS:
        common = {
            "benchmark": "guided_cost",
            "setting": setting_of(args, where),
            "conditions": where,
            "configuration": configuration,
        }
        log = args.out.with_suffix(f".{configuration}.log")
        print(f"\n{configuration}: log in {log}", flush=True)
        command = [sys.executable, "-m", "benchmarks.guided_cost", "--child", configuration, *sys.argv[1:]]
        for record in run_child(command, log):
            if record["kind"] == "start":
                record |= kv_account(args, configuration, record, read_memory(log))
            append_line(args.out, common | record)
            print(" ", brief(record), flush=True)
        for (batch, temperature), seen in read_steps(log).items():
            append_line(args.out, common | {"kind": "steps", "batch": batch, "temperature": temperature, **seen})


def ask_conditions(commit: str | None) -> dict[str, Any]:
    """In a process of its own: torch would keep some of the GPU's memory."""
    text = subprocess.run(
        [sys.executable, "-m", "benchmarks.conditions"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    where = json.loads(text.splitlines()[-1])
    return where | {"commit": commit} if commit else where


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
    }


def models_of(configuration: str, base: str, proxy: str) -> dict[str, str]:
    """Name of the dimensions per role."""
    if configuration == "guided":
        return {"base": base, "expert": proxy, "amateur": proxy}
    return {"base": base if configuration == "plain-base" else proxy}


def kv_account(
    args: argparse.Namespace, configuration: str, start: dict[str, Any], memory: dict[str, Any]
) -> dict[str, Any]:
    """How much of the memory that SGLang may fill is filled with weights and KV.

    SGLang's budget is mem_fraction_static of what was free before the first weight. What weights leave of it, divided
    by the bytes of one token in all pools, is the most tokens that can be served.
    """
    width = 2 if args.cpu else 1  # float32
    token_bytes = sum(
        DIMENSIONS[name].kv_bytes_per_token(args.tp_size) * width
        for name in models_of(configuration, args.base, args.proxy).values()
    )
    reported = memory.get("token_bytes", {}).get("sum", token_bytes)
    if reported != token_bytes:
        raise RuntimeError(f"a token is {token_bytes} bytes by the dimensions and {reported} by the start-up table")
    budget, weights = memory["free_before_gib"] * start["mem_fraction_static"], memory["weights_gib"]["sum"]
    kv = start["tokens"] * token_bytes / GIB
    gpus = query_gpus("memory.used", "memory.free")[: args.tp_size]
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
            return f"batch {record['batch']} temperature {record['temperature']:g}: {record['ms_per_step']} ms/step " \
                   f"of {record['runs_ms']}"  # fmt: skip
        case "prefill":
            return f"prefill: {record['tokens_per_s']:,} tokens/s, {record['runs_s']} s"
    return json.dumps(record)


def append_line(out: Path, line: dict[str, Any]) -> None:
    with out.open("a") as file:
        file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), **line}) + "\n")


# Tables


def read_lines(path: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, path.read_text().splitlines())
    return [line for line in lines if line["benchmark"] == "guided_cost"]


def grouped(lines: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(json.dumps(line["setting"], sort_keys=True), []).append(line)
    return groups


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The newest measurements of one setting, side by side."""
    setting, where = lines[-1]["setting"], lines[-1]["conditions"]
    newest = {(line["kind"], line["configuration"], line.get("batch"), line.get("temperature")): line for line in lines}

    def value(name: str, kind: str, configuration: str, batch: int | None = None, temperature: float | None = None):
        return newest.get((kind, configuration, batch, temperature), {}).get(name)

    decodes = sorted({(key[3], key[2]) for key in newest if key[0] == "decode"})
    decode = []
    for temperature, batch in decodes:
        base, proxy, guided = (value("ms_per_step", "decode", c, batch, temperature) for c in CONFIGURATIONS)
        steps = [newest.get(("steps", c, batch, temperature)) for c in CONFIGURATIONS]
        decode.append({
            "batch": batch,
            "temperature": temperature,
            "plain_base_ms": base,
            "plain_proxy_ms": proxy,
            "guided_ms": guided,
            "guided_over_base": divided(guided, base),
            "over_three_in_turn": divided(guided, base and proxy and base + 2 * proxy),
            "ceiling_ms": {c: round(step_ceiling_ms(setting, where, c, batch), 2) for c in CONFIGURATIONS},
            "scheduler_ms": [seen and seen["ms_per_step"] for seen in steps],
            "full_batch_lines": [seen and f"{seen['full']}/{seen['lines']}" for seen in steps],
            "graph_lines": [seen and f"{seen['graphed']}/{seen['lines']}" for seen in steps],
        })  # fmt: skip
    seconds = [value("seconds", "prefill", c) for c in CONFIGURATIONS]
    base, proxy, guided = seconds
    prefill = {
        "prompts": setting["prefill"],
        **dict(zip(("plain_base_s", "plain_proxy_s", "guided_s"), seconds, strict=True)),
        "tokens_per_s": [value("tokens_per_s", "prefill", c) for c in CONFIGURATIONS],
        "guided_over_base": divided(guided, base),
        "over_three_in_turn": divided(guided, base and proxy and base + 2 * proxy),
    }
    starts = {c: newest[("start", c, None, None)] for c in CONFIGURATIONS if ("start", c, None, None) in newest}
    names = ("tokens", "tokens_that_fit", "capped", "token_bytes_sum", "weights_gib", "kv_gib", "budget_gib",
             "used_percent", "mem_fraction_static", "gpu_free_gib", "start_s")  # fmt: skip
    memory = {c: {name: start[name] for name in names} for c, start in starts.items()}
    return {"setting": setting, "conditions": where, "decode": decode, "prefill": prefill, "memory": memory}


def divided(number: float | None, by: float | None) -> float | None:
    return round(number / by, 3) if number and by else None


def step_ceiling_ms(setting: dict[str, Any], where: dict[str, Any], configuration: str, batch: int) -> float:
    """A step can't be faster than reading each weight and each KV byte once, at the speed of a copy."""
    plan = Plan(tuple(setting["batches"]), setting["input_tokens"], setting["output_tokens"])
    models = [DIMENSIONS[name] for name in models_of(configuration, setting["base"], setting["proxy"]).values()]
    width, ranks = 2 if setting["dtype"] == "float32" else 1, setting["tp_size"]
    moved = width * sum(
        model.step_weight_bytes / ranks + batch * plan.mean_context_tokens * model.kv_bytes_per_token(ranks)
        for model in models
    )
    return moved / (where["copy_tb_per_s"] * 1e12) * 1e3


def print_conditions(where: dict[str, Any], setting: dict[str, Any]) -> None:
    print(
        f"{setting['tp_size']} x {where['device']}, driver {where['driver']}, torch {where['torch']}, sglang "
        f"{where['sglang']}, python {where['python']}, commit {where['commit']}\n"
        f"{setting['base']} guided by two {setting['proxy']}, TP {setting['tp_size']}, {setting['dtype']}, random "
        f"weights, attention {setting['attention_backend']}, SGLang's defaults for graphs and overlap, prompts of "
        f"{setting['input_tokens']} tokens, {setting['output_tokens']} steps timed",
        flush=True,
    )


def print_ceilings(args: argparse.Namespace, where: dict[str, Any]) -> None:
    base, proxy = DIMENSIONS[args.base], DIMENSIONS[args.proxy]
    setting, both = setting_of(args, where), base.step_weight_bytes + 2 * proxy.step_weight_bytes
    print(
        f"a step reads {base.step_weight_bytes / 1e9:.1f} GB of the base's weights and {both / 1e9:.1f} GB of all "
        f"three in {BYTES_PER_WEIGHT}-byte numbers; a copy moves {where['copy_tb_per_s']} TB/s"
    )
    for batch in args.batches:
        plain, guided = (step_ceiling_ms(setting, where, c, batch) for c in ("plain-base", "guided"))
        print(f"  ceiling at batch {batch}: base {plain:.2f} ms, guided {guided:.2f} ms, ratio {guided / plain:.3f}")


def print_tables(result: dict[str, Any]) -> None:
    print()
    print_conditions(result["conditions"], result["setting"])
    print("\nms per decode step")
    print_table(
        ("batch", "temp.", "base", "proxy", "guided", "guided/base", "/(base+2 proxies)", "ceiling", "by scheduler",
         "full batch", "graphs"),
        [
            (row["batch"], row["temperature"], row["plain_base_ms"], row["plain_proxy_ms"], row["guided_ms"],
             row["guided_over_base"], row["over_three_in_turn"], row["ceiling_ms"]["guided"],
             *(" ".join(map(shown, row[name])) for name in ("scheduler_ms", "full_batch_lines", "graph_lines")))
            for row in result["decode"]
        ],
    )  # fmt: skip
    prefill = result["prefill"]
    if any(prefill["tokens_per_s"]):
        print(f"\nprefill of {prefill['prompts'][0]} prompts of {prefill['prompts'][1]} tokens")
        print_table(
            ("", "base", "proxy", "guided", "guided/base", "/(base+2 proxies)"),
            [
                ("seconds", prefill["plain_base_s"], prefill["plain_proxy_s"], prefill["guided_s"],
                 prefill["guided_over_base"], prefill["over_three_in_turn"]),
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
