"""Programs that a person runs from the repository root: `python -m programs.NAME`. The package never imports them."""
