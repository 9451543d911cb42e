"""Three tiny Qwen2.5-VL checkpoints, trained by us, in which guidance can be seen to work on any machine.

    python -m sglang.launch_server --plugin proxythinker $(python -m sgl_proxythinker.tiny_family)

They know one task: questions about grids of coloured shapes, as `benchmarks/tiny_family` draws them. `README.md` beside
this file is their model card.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
BASE, EXPERT, AMATEUR = FOLDER / "base", FOLDER / "expert", FOLDER / "amateur"
