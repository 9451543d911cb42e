"""Tables and a plot of an evaluation.

python -m benchmarks.tiny_family.report OUT/results.jsonl        # OUT/report.md and OUT/report.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.tiny_family.results import read_lines
from sgl_proxythinker.tiny_family.settings import PASS_AT, SETTINGS

Line = dict[str, Any]

# Okabe and Ito's palette, and a dash of its own for each line: told apart without colour too.
STYLES = {
    "guided": ("#D55E00", "-", "o"),
    "no-amateur": ("#0072B2", "--", "s"),
    "base": ("#000000", ":", "^"),
    "expert": ("#009E73", "-.", "D"),
    "amateur": ("#CC79A7", (0, (5, 1, 1, 1, 1, 1)), "v"),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiny_family.report", description=__doc__.splitlines()[0]
    )
    parser.add_argument("results", type=Path, help="results.jsonl")
    parser.add_argument("--out", type=Path, help="folder (the results')")
    args = parser.parse_args(arguments)
    lines, out = read_lines(args.results), args.out or args.results.parent
    (out / "report.md").write_text(markdown(lines))
    plot(lines, out / "report.png")
    print(markdown(lines))


def markdown(lines: list[Line]) -> str:
    """The tables of what is there, in the order of `settings.py`, and what they were measured on."""
    order = list(SETTINGS)
    lines = sorted(lines, key=lambda line: order.index(line["setting"]))
    greedy, sampled = ([line for line in lines if line["sampled"] is kind] for kind in (False, True))
    parts = [_greedy_table(greedy)] if greedy else []
    parts += [_pass_table(sampled)] if sampled else []
    parts += [f"*{_conditions(line)}*" for line in lines[:1]]
    return "\n\n".join(parts) + "\n"


def _greedy_table(lines: list[Line]) -> str:
    kinds = sorted({kind for line in lines for kind in line["kinds"]})
    header = ["setting", "accuracy [95 % CI]", *kinds, "thinks", "verifies", "backtracks", "tokens"]
    rows = [
        [
            line["setting"], _percent_with_interval(line["accuracy"], line["interval"]),
            *(_percent(line["kinds"][kind]["accuracy"]) for kind in kinds),
            *(_percent(line[manner]) for manner in ("thinks", "verifies", "backtracks")), f"{line['tokens']:.1f}",
        ]
        for line in lines
    ]  # fmt: skip
    return _table(header, rows)


def _pass_table(lines: list[Line]) -> str:
    ks = [str(k) for k in PASS_AT if all(str(k) in line["pass_at"] for line in lines)]
    rows = [
        [
            line["setting"].removesuffix("-sampled"),
            *(_percent_with_interval(line["pass_at"][k]["value"], line["pass_at"][k]["interval"]) for k in ks),
        ]
        for line in lines
    ]
    return _table(["setting, temperature 1", *(f"pass@{k} [95 % CI]" for k in ks)], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _percent_with_interval(share: float, interval: list[float]) -> str:
    low, high = interval
    return f"{_percent(share)} [{_percent(low)}, {_percent(high)}]"


def _conditions(line: Line) -> str:
    return (
        f"{line['count']} problems of the {line['split']} split, {line['device']}, torch {line['torch']}, "
        f"SGLang {line['sglang']}, inspect-ai {line['inspect_ai']}, commit {line['commit']}, {line['date']}."
    )


def plot(lines: list[Line], file: Path) -> None:
    """Accuracy over alpha beside pass@k, each with its 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_name = {line["setting"]: line for line in lines}
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    _plot_alphas(left, by_name)
    _plot_pass_at(right, by_name)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(framealpha=0.85, edgecolor="none")
    figure.savefig(file, dpi=160)
    pyplot.close(figure)


def _plot_alphas(axes: Any, by_name: dict[str, Line]) -> None:
    for family in ("guided", "no-amateur"):
        lines = sorted(
            (line for name, line in by_name.items() if name.startswith(f"{family}-") and _is_greedy(line)),
            key=lambda line: line["alpha"],
        )
        if "base" in by_name:  # what both are at alpha 0
            lines.insert(0, by_name["base"])
        _draw(axes, family, [line["alpha"] for line in lines], lines)
    for role in ("base", "expert", "amateur"):
        if role in by_name:
            colour, dash, _ = STYLES[role]
            axes.axhline(100 * by_name[role]["accuracy"], color=colour, linestyle=dash, label=role, linewidth=1.2)
            axes.axhspan(*(100 * end for end in by_name[role]["interval"]), color=colour, alpha=0.07, linewidth=0)
    axes.set(xlabel="alpha", ylabel="accuracy, %", title="greedy")


def _plot_pass_at(axes: Any, by_name: dict[str, Line]) -> None:
    for name, line in by_name.items():
        if line["sampled"]:
            role = name.removesuffix("-sampled")
            ks = [k for k in PASS_AT if str(k) in line["pass_at"]]
            points = [line["pass_at"][str(k)] for k in ks]
            points = [{"accuracy": point["value"], "interval": point["interval"]} for point in points]
            _draw(axes, role.split("-")[0], ks, points, label=role)
    axes.set_xscale("log", base=2)
    axes.set_xticks(PASS_AT, [str(k) for k in PASS_AT])
    axes.set(xlabel="k", ylabel="pass@k, %", title="temperature 1")


def _draw(axes: Any, style: str, xs: list[float], lines: list[Line], label: str | None = None) -> None:
    colour, dash, marker = STYLES[style]
    low, high = ([100 * line["interval"][end] for line in lines] for end in (0, 1))
    axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    shares = [100 * line["accuracy"] for line in lines]
    axes.plot(xs, shares, color=colour, linestyle=dash, marker=marker, markersize=4, label=label or style)


def _is_greedy(line: Line) -> bool:
    return not line["sampled"] and not line["blind"]


if __name__ == "__main__":
    main()
