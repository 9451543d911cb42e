"""Programs that a person runs from the repository root, as `python -m programs.NAME`. The package never imports them."""
