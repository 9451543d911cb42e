"""Four tiny Qwen2.5-VL checkpoints, trained by us, in which guidance can be seen to work on any machine.

    python -m sglang.launch_server --plugin proxythinker $(proxythinker tiny-family)
    python -m sglang.launch_server --plugin proxythinker $(proxythinker tiny-family --experts)

They know one task, questions about grids of coloured shapes, which is in this folder too: `scene` draws the pictures,
`problems` asks, in `wordings`; `grading` reads answers, `settings` says how it was measured. `README.md` beside this
file is their model card; `benchmarks/tiny_family` has their training.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
BASE, EXPERT, AMATEUR = FOLDER / "base", FOLDER / "expert", FOLDER / "amateur"
# A second expert from the same amateur, by RL on two of the five kinds of questions: `SPECIALIST.name` in requests.
SPECIALIST = FOLDER / "specialist"
