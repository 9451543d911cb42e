"""One decoding step: plan, logits, fusion, verdicts, trace."""
