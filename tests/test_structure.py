"""The structure that pyproject.toml declares is the one that the code has, from every way to install it."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sgl_proxythinker import __version__

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parent.parent


def test_imports_keep_to_the_layers():
    """`lint-imports` names the import that goes the wrong way, hidden in a function or not."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
    assert "0 broken" in run.stdout


def test_patches_are_found_in_a_bare_checkout():
    """Without an install, as on a GPU host: SGLANG is found, and of this project only the checkout."""
    program = "import sgl_proxythinker.patches as p, sys; sys.stdout.write(p.__file__ + str(len(p.RECORDS) > 50))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == str(ROOT / "sgl_proxythinker" / "patches" / "__init__.py") + "True", run.stderr[-2000:]


def test_a_wheel_holds_every_file_of_the_package(tmp_path):
    """Kills: a folder that setuptools doesn't find; a link to patches that is left out."""
    sources = tmp_path / "sources"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "sgl_proxythinker", "patches", "programs", "pyproject.toml",
         "pinned.txt", "README.md", "LICENSE", "NOTICE"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\n")[:-1]  # fmt: skip
    for name in files:
        source, target = ROOT / name, sources / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.suffix != ".safetensors":
            target.write_bytes(source.read_bytes())
    program = (
        "import os, sys; from setuptools import build_meta; os.chdir(sys.argv[1]); build_meta.build_wheel(sys.argv[2])"
    )
    run = subprocess.run([sys.executable, "-c", program, str(sources), str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {name for name in files if name.startswith("sgl_proxythinker/") and name.endswith(".py")}
    wanted |= {f"sgl_proxythinker/{name}" for name in files if name.startswith("patches/") and name.endswith(".py")}
    wanted |= {f"sgl_proxythinker/{name}" for name in files if name.startswith("programs/")}
    # What is read at run time beside the code.
    wanted |= {name for name in files if name.startswith("sgl_proxythinker/evaluation/") and not name.endswith(".in")}
    wanted |= {"sgl_proxythinker/py.typed"}
    assert wanted <= held, sorted(wanted - held)
    told = f"sgl_proxythinker-{__version__}.dist-info"
    assert {f"{told}/licenses/LICENSE", f"{told}/licenses/NOTICE"} <= held, "the version and the licence are told"
    assert not any(name.startswith(("patches/", "programs/")) for name in held), "top-level names that are anybody's"


def test_programs_are_imported_under_one_name():
    """`programs.demo` and `sgl_proxythinker.programs.demo` would be two modules, with two of each class."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=ROOT, capture_output=True, text=True
    )
    files = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    assert len(files) > 300
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(re.match(r"(programs|patches)\b", name) for name in names), f"{file}: {names}"
