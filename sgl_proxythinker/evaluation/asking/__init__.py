"""How inspect-ai puts the questions to a server: a model of its own kind, a solver, a scorer, a task.

Only this room imports inspect-ai, which wants an environment of its own: `environment.py` makes it.
"""
