"""Let SGLang find the plugin of a checkout that isn't installed, by its entry point.

python -m benchmarks.bare_checkout FOLDER      # prints what PYTHONPATH needs in front
"""

from __future__ import annotations

import runpy
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def write_metadata(folder: Path) -> list[str]:
    """Write the package's entry points where Python looks for them.

    Args:
        folder: of the metadata; made if it isn't there.

    Returns:
        What has to stand on the path: the checkout and the folder.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # Not imported: the package needs what a GPU host may have elsewhere.
    version = runpy.run_path(str(ROOT / "sgl_proxythinker" / "version.py"))["__version__"]
    name = project["name"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{point} = {target}" for point, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return [str(ROOT), str(folder)]


if __name__ == "__main__":
    print(":".join(write_metadata(Path(sys.argv[1]).absolute())))
