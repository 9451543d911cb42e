"""Tables and a plot of what guidance costs, from lines of results.

    python -m benchmarks.report benchmarks/results/2026-11-24-*.jsonl --plot benchmarks/results/2026-11-24-cost.png

Lines of `guided_cost`, `served` and `oracle_speedup` are read, others passed over. Tables are Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import image_chats, oracle_speedup, second_turn, served
from benchmarks.cost_summary import divided, ranks_of, setting_layout, summaries
from benchmarks.guided_cost import shown
from benchmarks.lines import read_lines

# Okabe and Ito's palette, and a dash and a marker of its own for each placement: told apart without colour too.
STYLES = {"shared": ("#0072B2", "-", "o"), "split": ("#D55E00", "--", "s"), "dedicated": ("#009E73", "-.", "D")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="files of JSON lines")
    parser.add_argument("--plot", type=Path, help="PNG: ratio over batch")
    args = parser.parse_args()
    costs = summaries(read_lines("guided_cost", *args.results))
    chats, turns = (
        served.summaries(module.NAME, read_lines(module.NAME, *args.results)) for module in (image_chats, second_turn)
    )
    speedups = oracle_speedup.summaries(read_lines(oracle_speedup.NAME, *args.results))
    parts = [cost_tables(cost) for cost in costs]
    parts += [chats_table(chats)] if chats else []
    parts += [turns_table(turns)] if turns else []
    parts += [speedup_table(speedup) for speedup in speedups]
    print("\n\n".join(parts))
    if args.plot:
        plot(costs, args.plot)


def cost_tables(cost: dict[str, Any]) -> str:
    """Decoding, batches at alpha 0, mixed batches and prefill of one guided engine."""
    parts = [f"**{title(cost['setting'])}**, ms a step"]
    parts.append(
        table(
            ("batch", "plain base", "guided", "ratio", "its parts", "ratio of the lower bounds"),
            [
                (batch_name(row), row["plain_base_ms"], row["guided_ms"], row["guided_over_base"], row["over_parts"],
                 divided(row["ceiling_ms"]["guided"], row["ceiling_ms"]["plain-base"]))
                for row in cost["decode"]
            ],
        )
    )  # fmt: skip
    if cost["alpha_zero"]:
        header = ("batch, all at alpha 0", "plain base", "guided engine", "ratio")
        names = ("plain_base_ms", "guided_engine_ms", "over_base")
        parts.append(
            table(header, [(row["batch"], *(row[name] for name in names)) for row in cost["alpha_zero"]])
        )  # fmt: skip
    if cost["mixed"]:
        header = ("guided + alpha 0", "expected", "guided engine", "ratio")
        names = ("expected_ms", "guided_engine_ms", "over_expected")
        parts.append(
            table(
                header,
                [
                    (f"{row['batch'] - row['unguided']} + {row['unguided']}", *(row[name] for name in names))
                    for row in cost["mixed"]
                ],
            )
        )
    prefill = cost["prefill"]
    if prefill["guided_s"]:
        requests, tokens = prefill["prompts"]
        ratio = f", ratio {prefill['guided_over_base']}" if prefill["guided_over_base"] else ""
        parts.append(
            f"Prefill of {requests} prompts of {tokens:,} tokens: guided {cell(prefill['guided_s'])} s, plain base "
            f"{cell(prefill['plain_base_s'])} s{ratio}."
        )
    return "\n\n".join([*parts, conditions(cost)])


def chats_table(results: list[dict[str, Any]]) -> str:
    header = ("image chats", "alpha", "plain: first token, ms", "guided", "ratio", "plain: tokens/s", "guided", "ratio")
    rows = [
        (f"{row['setting']['concurrency']} at once, {title(row['setting'])}", row["alpha"], *rounded(row["ttft_ms"]),
         row["ttft_ratio"], *rounded(row["tokens_per_s"]), row["throughput_ratio"])
        for row in results
    ]  # fmt: skip
    return "\n\n".join([table(header, rows), conditions(results[-1])])


def turns_table(results: list[dict[str, Any]]) -> str:
    header = ("second turn", "tokens", "of them cached", "first token without cache, ms", "with, ms", "without / with")
    rows = [
        (f"{row['setting']['images']} images, {title(row['setting'])}", row["prompt_tokens"], row["cached_tokens"],
         *row["ttft_ms"], row["off_over_on"])
        for row in results
    ]  # fmt: skip
    return "\n\n".join([table(header, rows), conditions(results[-1])])


def speedup_table(result: dict[str, Any]) -> str:
    header = (title(result["setting"]), "requests", "seconds", "requests/s", "tokens/s", "speed-up")
    names = ("requests", "seconds", "requests_per_s", "tokens_per_s", "speed_up")
    rows = [(row["how"], *(row[name] for name in names)) for row in result["rows"]]
    return "\n\n".join([table(header, rows), conditions(result)])


def title(setting: dict[str, Any]) -> str:
    layout = setting_layout(setting)
    plain = ranks_of(setting, "plain-base")[0][0].tp_size
    gpus = setting.get("gpu_of_rank")
    shared_gpus = f"; ranks on GPUs {', '.join(map(str, gpus))}, through sockets" if gpus else ""
    return (
        f"{layout.base} + 2 x {layout.proxy}, {layout.tp_size} x `{layout.placement}` (base TP {layout.base_ranks}, "
        f"proxies TP {layout.proxy_ranks}; plain TP {plain}{shared_gpus})"
    )


def batch_name(row: dict[str, Any]) -> str:
    return f"{row['batch']}, temperature {row['temperature']:g}" if row["temperature"] else str(row["batch"])


def conditions(result: dict[str, Any]) -> str:
    where, setting = result["conditions"], result["setting"]
    return (
        f"*{where['device']}, {setting['dtype']}, random weights with the real dimensions; driver {where['driver']}, "
        f"torch {where['torch']}, SGLang {where['sglang']}, commit {where['commit']}*"
    )


def rounded(numbers: Iterable[float]) -> list[int]:
    return [round(number) for number in numbers]


def table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def plot(costs: list[dict[str, Any]], file: Path) -> None:
    """A step of the guided engine over one of the plain base, by batch: guided, and at alpha 0."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        (heading, curves)
        for heading, kind, name in (
            ("all requests guided", "decode", "guided_over_base"),
            ("all requests at alpha 0", "alpha_zero", "over_base"),
        )
        if (curves := [(cost, points) for cost in costs if (points := greedy_points(cost[kind], name))])
    ]
    if not panels:
        raise SystemExit(f"there is no ratio of decoding steps to plot: {file} is not written")
    figure, (row,) = pyplot.subplots(
        1, len(panels), figsize=(5.5 * len(panels), 4.2), sharey=True, squeeze=False, constrained_layout=True
    )
    for axes, (heading, curves) in zip(row, panels, strict=True):
        for cost, points in curves:
            draw(axes, cost["setting"], points)
        axes.axhline(1, color="black", linewidth=0.8)
        batches = sorted({batch for _, points in curves for batch, _ in points})
        axes.set(xlabel="requests in the batch", title=heading, xscale="log")
        axes.set_xticks(batches, map(str, batches))
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(framealpha=0.85, edgecolor="none", fontsize=8)
    row[0].set_ylabel("time of a decoding step, guided engine / plain base")
    figure.savefig(file, dpi=160)
    pyplot.close(figure)


def greedy_points(rows: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(row["batch"], row[name]) for row in rows if row["temperature"] == 0 and row[name]]


def draw(axes: Any, setting: dict[str, Any], points: list[tuple[int, float]]) -> None:
    layout = setting_layout(setting)
    colour, dash, marker = STYLES[layout.placement]
    plain = ranks_of(setting, "plain-base")[0][0].tp_size
    gpus = "1 GPU" if layout.tp_size == 1 else f"{layout.tp_size} GPUs"
    if on := setting.get("gpu_of_rank"):
        gpus = f"{layout.tp_size} ranks on {len(set(on))} GPUs, through sockets"
    # A placement has one colour; its markers are filled where there are several GPUs.
    fill = colour if layout.tp_size > 1 else "white"
    axes.plot(
        *zip(*points, strict=True), color=colour, linestyle=dash, marker=marker, markerfacecolor=fill,
        label=f"{layout.placement}, {gpus}, over TP {plain}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
