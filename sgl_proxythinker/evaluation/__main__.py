"""`python -m sgl_proxythinker.evaluation`: see `command_line.py`."""

from sgl_proxythinker.evaluation.command_line import main

if __name__ == "__main__":  # the process that grades imports it too
    raise SystemExit(main())
