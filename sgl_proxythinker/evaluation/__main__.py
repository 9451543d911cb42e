"""`python -m sgl_proxythinker.evaluation`: see `command_line.py`."""

from sgl_proxythinker.evaluation.command_line import main

raise SystemExit(main())
