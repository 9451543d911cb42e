"""What laws of strength are worth beside a constant one: tables with paired tests, and a plot.

    python -m benchmarks.tiny_family.worth VALIDATION/results.jsonl TEST/results.jsonl --out DIR

Bounds are chosen on the validation split and reported on the test split; each setting is compared with the constant
0.5, and with the constant that the validation split prefers. DIR gets worth.jsonl (all lines), worth.md and worth.png.
Any number of files; a line says which split it is of.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.tiny_family.measures import paired
from benchmarks.tiny_family.results import read_lines
from sgl_proxythinker.tiny_family.settings import CONSTANT, SETTINGS
from sgl_proxythinker.tiny_family.wordings import TEST, VALIDATION

Line = dict[str, Any]

# Okabe and Ito's palette and a brown, and a marker of its own for each: told apart without colour too.
STYLES = {
    "constant": ("#000000", "o"),
    "entropy": ("#D55E00", "^"),
    "divergence": ("#0072B2", "s"),
    "schedule": ("#009E73", "D"),
    "marker": ("#8B4513", "p"),
    "clip": ("#CC79A7", "v"),
    "plausible": ("#E69F00", "P"),
    "min_p": ("#56B4E9", "X"),
}
COMPARED = ("to {}, points [95 % CI]", "problems better, worse; p")
MEASURED = ("thinks", "tokens", "steered, %", "steered tokens of an answer")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_family.worth", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="results.jsonl of evaluate")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    args = parser.parse_args(arguments)
    lines = once([line for file in args.results for line in read_lines(file)])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "worth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (args.out / "worth.md").write_text(markdown(lines))
    plot(lines, args.out / "worth.png")
    print(markdown(lines))


def once(lines: list[Line]) -> list[Line]:
    """One line for each setting and split, where a reference was asked in several runs.

    Raises:
        ValueError: it was right of other problems there.
    """
    kept: dict[tuple[str, str], Line] = {}
    for line in lines:
        first = kept.setdefault((line["split"], line["setting"]), line)
        if first["right_of"] != line["right_of"]:
            raise ValueError(f"{line['setting']} was asked twice on the {line['split']} split, and answered otherwise")
    return list(kept.values())


def markdown(lines: list[Line]) -> str:
    """A table for each split and way of choosing tokens, in the order of `settings.py`."""
    parts = []
    for sampled in (False, True):
        names = list(dict.fromkeys([CONSTANT, best_constant(lines, sampled)]))
        for split in (VALIDATION, TEST):
            if some := _chosen(lines, split, sampled):
                parts.append(_table(f"{split}, {'temperature 1' if sampled else 'greedy'}", some, names))
    return "\n\n".join(parts) + "\n"


def best_constant(lines: list[Line], sampled: bool) -> str:
    """The constant with the highest accuracy on the validation split, of equal ones with the fewest steered tokens;
    `CONSTANT` where that split was not asked."""
    constants = [
        line for line in _chosen(lines, VALIDATION, sampled)
        if kind_of(line) == "constant" and line["alpha"] != 0 and line["amateur_alpha"] is None
    ]  # fmt: skip
    best = max(constants, key=lambda line: (line["accuracy"], -line["tokens"]), default={"setting": CONSTANT})
    return _name(best)


def _chosen(lines: list[Line], split: str, sampled: bool) -> list[Line]:
    return [line for line in lines if line["split"] == split and line["sampled"] == sampled and not line["blind"]]


def _name(line: Line) -> str:
    return line["setting"].removesuffix("-sampled")


def _table(title: str, lines: list[Line], names: list[str]) -> str:
    lines = sorted(lines, key=lambda line: list(SETTINGS).index(line["setting"]))
    constants = [line for name in names for line in lines if _name(line) == name]
    compared = [cell.format(_name(constant)) for constant in constants for cell in COMPARED]
    header = ["setting", "accuracy [95 % CI]", *compared, *MEASURED]
    rows = [_row(line, constants) for line in lines]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))
    return f"{title}, {lines[0]['n']} problems, {lines[0]['answers']} answers:\n\n{table}"


def _row(line: Line, constants: list[Line]) -> list[str]:
    low, high = line["interval"]
    share = steered(line)
    return [
        _name(line), f"{100 * line['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        *(cell for constant in constants for cell in _compared(line, constant)),
        f"{100 * line['thinks']:.1f}", f"{line['tokens']:.1f}", f"{100 * share:.1f}", f"{share * line['tokens']:.2f}",
    ]  # fmt: skip


def _compared(line: Line, constant: Line) -> tuple[str, str]:
    if line is constant:
        return "", ""
    pair = paired(line["right_of"], constant["right_of"], line["answers"] // line["n"])
    interval = ", ".join(f"{100 * end:+.1f}" for end in pair.interval)
    return f"{100 * pair.difference:+.1f} [{interval}]", f"{pair.better}, {pair.worse}; {pair.p:.2g}"


def steered(line: Line) -> float:
    """The share of generated tokens with a strength other than 0."""
    return line.get("touched", float(line["alpha"] != 0))


def kind_of(line: Line) -> str:
    """Which law a line is of; one that is no law is a constant."""
    if line.get("clip") is not None:
        return "clip"
    if line.get("plausible") is not None:
        return "plausible"
    if line.get("min_p") is not None:
        return "min_p"
    laws = line.get("law") or []
    if laws and "after" in laws[0]:
        return "marker"
    return laws[0]["kind"] if laws else "constant"


def plot(lines: list[Line], file: Path) -> None:
    """Accuracy over the share of steered tokens: the test split filled, the validation split hollow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ways = [sampled for sampled in (False, True) if any(line["sampled"] == sampled for line in lines)]
    splits = [split for split in (VALIDATION, TEST) if any(line["split"] == split for line in lines)]
    figure, all_axes = pyplot.subplots(len(ways), len(splits), figsize=(5.5 * len(splits), 4.2 * len(ways)),
                                       squeeze=False, sharey="row", constrained_layout=True)  # fmt: skip
    for row, sampled in zip(all_axes, ways, strict=True):
        for axes, split in zip(row, splits, strict=True):
            if some := _chosen(lines, split, sampled):
                _draw(axes, some, filled=split == TEST)
                axes.set_title(f"{split}, {'temperature 1' if sampled else 'greedy'}, {some[0]['n']} problems")
            else:
                axes.set_axis_off()
    handles = {
        label: handle for axes in all_axes.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _draw(axes: Any, lines: list[Line], filled: bool) -> None:
    for kind, (colour, marker) in STYLES.items():
        points = [line for line in lines if kind_of(line) == kind and steered(line) > 0]
        if not points:
            continue
        xs, ys = [100 * steered(line) for line in points], [100 * line["accuracy"] for line in points]
        below, above = zip(*((line["accuracy"] - low, high - line["accuracy"])
                             for line in points for low, high in [line["interval"]]), strict=True)  # fmt: skip
        errors = [[100 * gap for gap in below], [100 * gap for gap in above]]
        axes.errorbar(xs, ys, errors, fmt=marker, color=colour, label=kind, markersize=5, linewidth=0.8,
                      markerfacecolor=colour if filled else "white")  # fmt: skip
    for line in lines:
        if kind_of(line) == "constant" and steered(line) == 0:
            axes.axhline(100 * line["accuracy"], color="#000000", linestyle=":", label="base", linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.set(xlabel="steered tokens, % of those generated", ylabel="accuracy, %")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
