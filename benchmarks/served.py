"""What a user of a server waits for, measured over HTTP; each server is started once for all that is asked of it.

    python -m benchmarks.served image_chats second_turn --base 32B --proxy 7B --out results/served.jsonl
    python -m benchmarks.served image_chats second_turn --base tiny --proxy tiny --cpu --chats 4 --concurrency 4 \\
        --chat-tokens 8 --image 56x84 --conversations 2 --turn-tokens 4 --out results/rehearsal-served.jsonl

`benchmarks.image_chats`, `benchmarks.second_turn` and `benchmarks.loads` say what is measured. Weights are random,
dimensions real. Every measurement is a line of --out with its conditions; the last line printed is JSON, with ratios.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import Any

from benchmarks import forced_acceptance, image_chats, loads, second_turn, servers
from benchmarks.conditions import ask_conditions
from benchmarks.layout import layout_of
from benchmarks.lines import append_line, group_by_setting, read_lines

MEASUREMENTS = {module.NAME: module for module in (image_chats, second_turn, loads)}


def main() -> None:
    # Of `timeout`: without it the server would go on, and hold the GPU.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    args = parse_arguments()
    if loads.NAME in args.measurements:
        forced_acceptance.offer(args.out.with_suffix(".acceptance"))
    where = ask_conditions(args.commit)
    print(
        f"{where['device']}, driver {where['driver']}, torch {where['torch']}, sglang {where['sglang']}, commit "
        f"{where['commit']}\n{args.base} guided by two {args.proxy}, {layout_of(args).describe()}; plain base TP "
        f"{args.base_tp_size or args.tp_size}; {servers.dtype(args)}, random weights",
        flush=True,
    )
    for engine in servers.ENGINES:
        asked = [MEASUREMENTS[name] for name in args.measurements if engine in MEASUREMENTS[name].ENGINES]
        if asked and engine in (args.only or servers.ENGINES):
            with servers.serving(args, engine) as server:
                for module in asked:
                    measure(module, server, args, where)
    results = [result for name in args.measurements for result in summaries(name, read_lines(name, args.out))]
    print(json.dumps({"name": "served", "results": results}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.served", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("measurements", nargs="+", choices=MEASUREMENTS)
    servers.add_arguments(parser)
    parser.add_argument("--only", choices=servers.ENGINES, action="append", help="repeat for more; default: all needed")
    parser.add_argument(
        "--image", type=servers.height_x_width, default=(448, 672), metavar="448x672",
        help="height x width of every image; a token is 28x28 pixels",
    )  # fmt: skip
    for module in MEASUREMENTS.values():
        module.add_arguments(parser)
    return parser.parse_args()


def measure(module: Any, server: servers.Server, args: argparse.Namespace, where: dict[str, Any]) -> None:
    """Append each record of a measurement to `args.out` as soon as it is there."""
    common = {
        "benchmark": module.NAME,
        "setting": servers.setting_of(args) | module.workload(args),
        "conditions": where,
        "engine": server.engine,
        "start_s": server.start_s,
    }
    for record in module.measure(server, args):
        append_line(args.out, common | record)
        print(f"  {module.NAME}, {module.brief(record)}", flush=True)


def summaries(name: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ratios of a measurement for each guided setting; the newest line of an engine and alpha counts.

    A plain server's line counts for every placement that it can be compared with, whichever run it comes from.
    """
    plain = [line for line in lines if line["engine"] == "plain"]
    results = []
    for group in group_by_setting([line for line in lines if line["engine"] != "plain"]):
        against = [line for line in plain if plain_server(line) == plain_server(group[-1])]
        newest = {(line["engine"], line.get("alpha"), line.get("load")): line for line in against + group}
        about = {"benchmark": name, "setting": group[-1]["setting"], "conditions": group[-1]["conditions"]}
        results += [about | row for row in MEASUREMENTS[name].compare(list(newest.values()))]
    return results


def plain_server(line: dict[str, Any]) -> list[Any]:
    """The plain server that a line comes from or is to be compared with."""
    setting, where = line["setting"], line["conditions"]
    guided_only = ("proxy", "placement", "proxy_tp_size", "base_tp_size", "tp_size")
    rest = {name: value for name, value in setting.items() if name not in guided_only}
    return [rest, setting["base_tp_size"] or setting["tp_size"], where["machine"], where["commit"]]


if __name__ == "__main__":
    main()
