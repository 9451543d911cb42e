"""Reasoning behaviours in answers: how often one goes back, checks, sets itself sub-goals, and reasons from the end.

The four behaviours are those of Gandhi et al. 2025 (arXiv 2503.01307). Two kinds of observers count them: `patterns.py`
offline, `judge.py` by asking a model. `agreement.py` says how far two observers count the same, and how one fares on
the answers of `labelled.jsonl`, which were labelled by the rules of `labelling.md`.
"""
