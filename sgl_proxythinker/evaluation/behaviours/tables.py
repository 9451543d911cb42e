"""Tables of reasoning behaviours as they are printed: what settings show, how observers agree, how patterns fare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sgl_proxythinker.evaluation.behaviours import patterns
from sgl_proxythinker.evaluation.behaviours.agreement import accuracy, agreement, between_observers
from sgl_proxythinker.evaluation.behaviours.labelled import Labelled
from sgl_proxythinker.evaluation.records import Behaviour, BehaviourRecord
from sgl_proxythinker.evaluation.summary import Share, summarize_behaviours


def of_settings(records: Iterable[BehaviourRecord]) -> str:
    """Occurrences in an answer of each setting, by each observer."""
    rows = [
        [each.setting, each.by, str(each.answers), *(_mean(each.counts[behaviour]) for behaviour in Behaviour)]
        for each in sorted(summarize_behaviours(records), key=lambda summary: (summary.setting, summary.by))
    ]
    return _table(["setting", "counted by", "answers", *map(_words, Behaviour)], rows)


def of_observers(records: Iterable[BehaviourRecord]) -> str:
    """How far each two observers agree; "" where there is only one."""
    rows = [
        [f"{one} / {other}", _words(behaviour), str(each.answers), f"{each.same:.2f}", _or_none(each.kappa),
         f"{each.difference:.2f}"]
        for (one, other), agreements in between_observers(records).items()
        for behaviour, each in agreements.items()
    ]  # fmt: skip
    header = ["observers", "behaviour", "answers", "same presence", "kappa", "difference of counts"]
    return _table(header, rows) if rows else ""


def of_patterns(answers: Sequence[Labelled]) -> str:
    """The patterns against labels, on each split."""
    rows = []
    for split in ("tuning", "held_out"):
        chosen = [answer for answer in answers if answer.split == split]
        observed, labels = [patterns.count(answer.text) for answer in chosen], [answer.counts for answer in chosen]
        agreements = agreement(observed, labels)
        for behaviour, each in accuracy(observed, labels).items():
            agreed = agreements[behaviour]
            rows.append([
                split.replace("_", " "), _words(behaviour), f"{each.found + each.missed} of {len(chosen)}",
                _share(each.precision), _share(each.recall), _or_none(agreed.kappa), f"{agreed.difference:.2f}",
            ])  # fmt: skip
    header = ["answers", "behaviour", "present in", "precision", "recall", "kappa", "difference of counts"]
    return _table(header, rows)


def _words(behaviour: Behaviour) -> str:
    return behaviour.value.replace("_", " ")


def _mean(share: Share) -> str:
    return f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f})"


def _share(share: Share | None) -> str:
    return "none" if share is None else _mean(share)


def _or_none(number: float | None) -> str:
    return "none" if number is None else f"{number:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, with columns of one width so that it can be read as it is."""
    # What stands in a name is shown, and makes no column.
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"
