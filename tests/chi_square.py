"""Were these tokens drawn from this distribution?"""

from __future__ import annotations

from collections import Counter

import torch
from scipy.stats import chisquare

# The chance that a right server fails one of these tests.
SIGNIFICANCE = 1e-5


def p_value(drawn: Counter, probabilities: torch.Tensor) -> float:
    """Chi-square of the counts against the distribution, rare tokens pooled; 0 if an impossible token was drawn."""
    if any(probabilities[token] == 0 for token in drawn):
        return 0.0
    total = sum(drawn.values())
    expected = probabilities.double() * total
    common = [token for token in range(len(expected)) if expected[token] >= 5]
    observed = [drawn[token] for token in common]
    wanted = [float(expected[token]) for token in common]
    rest_observed, rest_wanted = total - sum(observed), total - sum(wanted)
    if rest_wanted >= 5:
        observed.append(rest_observed)
        wanted.append(rest_wanted)
    scale = sum(observed) / sum(wanted)
    return float(chisquare(observed, [value * scale for value in wanted]).pvalue)


def softmax(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    return torch.softmax(logits.double() / temperature, dim=-1)
