"""Plots of accuracy over the strength alpha, and of pass@k: one small panel for each benchmark, light and dark."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sgl_proxythinker.evaluation.report.results import WITH_AMATEUR, WITHOUT_AMATEUR, Results, strength_in
from sgl_proxythinker.evaluation.report.wording import percent, title
from sgl_proxythinker.evaluation.summary import Rule, Share

PANEL_INCHES = (3.5, 2.5)  # of 72 points: as wide as a phone, so that its letters are as large there
MARKERS = "osD^vPX"
MARKS = "●■◆▲▼✚✖"  # the same ones, in text
DASHES = ("-", "--", ":")
COLOURS = 7
LEAST_HEIGHT = 0.12  # of accuracy, so that small differences look small


class Theme(NamedTuple):
    """Colours of the page, light or dark; `page.css` has the same."""

    ink: str
    quiet: str
    rule: str
    curves: tuple[str, ...]


LIGHT = Theme(
    "#1d1b18", "#5f5a52", "#dcd6cb", ("#b8410c", "#0a5f9e", "#00705a", "#9a3068", "#7d5a00", "#5b3fb0", "#3d3a36")
)
DARK = Theme(
    "#edeae4", "#aba69d", "#3a383c", ("#f2945c", "#7cbdf0", "#4fc9a4", "#ee93c4", "#e3b341", "#b9a8ff", "#d5d0c8")
)


class Curve(NamedTuple):
    """One line of a panel. The same look means the same name in all panels of a plot."""

    name: str
    look: int  # which colour, marker and dashes
    points: list[tuple[float, Share]]  # x, and what is there

    @property
    def colour(self) -> int:
        return self.look % COLOURS

    @property
    def marker(self) -> int:
        """Another one for each colour when the colours come again."""
        return (self.look + self.look // COLOURS) % len(MARKERS)

    @property
    def mark(self) -> str:
        return MARKS[self.marker]


class Panel(NamedTuple):
    """One small plot."""

    title: str
    x_label: str
    curves: list[Curve]
    x_doubles: bool  # steps are factors, not differences

    def described(self) -> str:
        """What it shows, for those who do not see it."""
        said = [
            f"{curve.name}: " + ", ".join(f"{percent(share.value)} % at {x:g}" for x, share in curve.points)
            for curve in self.curves
        ]
        return f"{self.title} over {self.x_label}. " + "; ".join(said) + "."


def accuracy_panels(results: Results, rule: Rule) -> list[Panel]:
    """Accuracy over alpha, with and without the amateur; empty where there is only one strength."""
    panels = []
    for benchmark in results.benchmarks:
        shares = {
            summary.setting: summary.accuracy[rule]
            for summary in results.of_benchmark(benchmark)
            if summary.setting in results.own
        }
        panels.append(Panel(title(benchmark), "alpha", _strengths(shares), x_doubles=False))
    if len(results.benchmarks) > 1:
        averages = {setting: results.macro(setting, rule) for setting in results.settings}
        known = {
            setting: Share(value, value, value)
            for setting, value in averages.items()
            if value is not None and setting in results.own
        }
        panels.append(Panel("Macro average", "alpha", _strengths(known), x_doubles=False))
    return [panel for panel in panels if any(len(curve.points) > 1 for curve in panel.curves)]


def pass_at_panels(results: Results, rule: Rule) -> list[Panel]:
    """The chance that one of k answers is right; empty where a question has one answer."""
    looks = {setting: look for look, setting in enumerate(results.settings)}
    panels = []
    for benchmark in results.benchmarks:
        curves = [
            Curve(one.setting, looks[one.setting], _doublings(one.pass_at[rule]))
            for one in results.of_benchmark(benchmark)
            if len(one.pass_at[rule]) > 1
        ]
        if curves:
            panels.append(Panel(title(benchmark), "k", curves, x_doubles=True))
    return panels


def legend_of(panels: Sequence[Panel]) -> list[Curve]:
    """Each curve's name and look once."""
    return list({curve.name: curve for panel in panels for curve in panel.curves}.values())


def svg_url(panel: Panel, theme: Theme) -> str:
    """The panel as a data URL, without its title and legend, which the page has as text."""
    file = io.BytesIO()
    with matplotlib.rc_context(_style(theme)):
        figure = Figure(figsize=PANEL_INCHES, layout="constrained")
        _draw(figure.add_subplot(), panel, theme)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def write_png(panels: Sequence[Panel], path: Path) -> None:
    """All panels and their legend in one picture, for a README."""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    legend = legend_of(panels)
    width, height = PANEL_INCHES
    legend_height = 0.25 * math.ceil(len(legend) / columns)
    with matplotlib.rc_context(_style(LIGHT)):
        figure = Figure(figsize=(columns * width, rows * (height + 0.25) + legend_height), layout="constrained")
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, panel in zip(places, panels, strict=False):
            _draw(axes, panel, LIGHT)
            axes.set_title(panel.title, loc="left", fontweight="bold")
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        handles = [Line2D([], [], label=curve.name, **_line_look(curve, LIGHT)) for curve in legend]
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False)
        figure.savefig(path, dpi=160, facecolor="white")


def _strengths(shares: dict[str, Share]) -> list[Curve]:
    """Without strength the amateur changes nothing: both curves begin at the base alone."""
    curves = []
    for look, (name, prefix) in enumerate((("with amateur", WITH_AMATEUR), ("without amateur", WITHOUT_AMATEUR))):
        by_strength = {0.0: shares["alpha-0"]} if "alpha-0" in shares else {}
        for setting, share in shares.items():
            if (strength := strength_in(setting, prefix)) is not None:
                by_strength[strength] = share
        if by_strength.keys() - {0.0}:
            curves.append(Curve(name, look, sorted(by_strength.items())))
    return curves


def _doublings(pass_at: dict[int, Share]) -> list[tuple[float, Share]]:
    """k of 1, 2, 4 and so on, and the last one: between them little happens."""
    return [(float(k), share) for k, share in pass_at.items() if k & (k - 1) == 0 or k == max(pass_at)]


def _draw(axes: Axes, panel: Panel, theme: Theme) -> None:
    place_of = math.log2 if panel.x_doubles else float
    xs = sorted({x for curve in panel.curves for x, _ in curve.points})
    width = place_of(xs[-1]) - place_of(xs[0])
    for place, curve in enumerate(panel.curves):
        # Whiskers of curves that share an x stand side by side.
        shift = 0.012 * width * (place - (len(panel.curves) - 1) / 2)
        values = [share.value for _, share in curve.points]
        # A bootstrap's interval may leave out the mean itself by a rounding error.
        below = [max(0.0, share.value - share.low) for _, share in curve.points]
        above = [max(0.0, share.high - share.value) for _, share in curve.points]
        axes.errorbar(
            [place_of(x) + shift for x, _ in curve.points], values, yerr=[below, above], elinewidth=1, capsize=0,
            **_line_look(curve, theme),
        )  # fmt: skip
    axes.set_xlabel(panel.x_label)
    if panel.x_doubles:
        axes.set_xticks([place_of(x) for x in xs], [f"{x:g}" for x in xs])
    low, high = axes.get_ylim()
    if (lacking := LEAST_HEIGHT - (high - low)) > 0:
        axes.set_ylim(low - lacking / 2, high + lacking / 2)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))


def _line_look(curve: Curve, theme: Theme) -> dict[str, Any]:
    return {
        "color": theme.curves[curve.colour], "marker": MARKERS[curve.marker],
        "linestyle": DASHES[curve.look % len(DASHES)], "markersize": 5, "linewidth": 1.6,
    }  # fmt: skip


def _style(theme: Theme) -> dict[Any, Any]:
    return {
        "text.parse_math": False,  # a dollar in a name is a dollar
        "svg.fonttype": "none",  # letters stay letters: smaller, and as sharp as the page's own
        "svg.hashsalt": "report",  # the same numbers make the same file
        "font.size": 10, "axes.titlesize": 11, "text.color": theme.ink,
        "axes.edgecolor": theme.quiet, "axes.labelcolor": theme.ink, "axes.linewidth": 0.8,
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "axes.axisbelow": True, "grid.color": theme.rule, "grid.linewidth": 0.7,
        "xtick.color": theme.quiet, "ytick.color": theme.quiet,
        "xtick.labelcolor": theme.ink, "ytick.labelcolor": theme.ink,
    }  # fmt: skip
