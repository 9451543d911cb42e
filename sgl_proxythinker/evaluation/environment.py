"""The environment that an evaluation runs in, made at its first use, or by hand for a host without SGLang.

    python -m sgl_proxythinker.evaluation.environment .venv-eval

inspect-ai's packages are newer than those that SGLang 0.5.17 pins. An environment of its own also keeps the client away
from the server's. `requirements.txt` pins every package; this one is linked into it, from a checkout or a wheel.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import sgl_proxythinker
from sgl_proxythinker.evaluation.errors import EvaluationError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
PACKAGE = Path(sgl_proxythinker.__file__).resolve().parent


def go_on_in_its_environment(arguments: Sequence[str]) -> NoReturn:
    """Become the same evaluation in an environment that has inspect-ai, which is made where there is none yet.

    Raises:
        EvaluationError: it can't be made.
    """
    python = str(_kept())
    sys.stderr.flush()
    os.execv(python, [python, "-m", "sgl_proxythinker.evaluation", *arguments])


def _kept() -> Path:
    """The Python of the environment in the user's cache: one for each release of this package and place of it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgl-proxythinker"
    made_of = (REQUIREMENTS.read_text(), str(PACKAGE), sys.version, sys.base_prefix)
    folder = cache / f"evaluation-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]}"
    whole = folder / "whole"  # is there when everything else is
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second evaluation waits for the first one's
            if not whole.exists():
                sys.stderr.write(f"Once, in about a minute: an environment with inspect-ai in {folder}\n")
                shutil.rmtree(folder)  # what an earlier one, cut off, has left
                make_environment(folder)
                whole.touch()
    except (OSError, subprocess.CalledProcessError) as error:
        raise EvaluationError(
            f"the evaluation's environment can't be made in {folder}: {error}. Make it elsewhere, and evaluate "
            "with its Python: python -m sgl_proxythinker.evaluation.environment FOLDER"
        ) from error
    return folder / "bin" / "python"


def make_environment(folder: Path) -> Path:
    """Make it, or bring it up to date.

    Returns:
        Its Python.

    Raises:
        subprocess.CalledProcessError: a package can't be installed; the installer has said why.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    uv = _uv()
    install = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    subprocess.run([*install, "--quiet", "--requirement", str(REQUIREMENTS)], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    link = packages / sgl_proxythinker.__name__
    link.unlink(missing_ok=True)
    link.symlink_to(PACKAGE)
    return python


def _uv() -> str | None:
    """Far faster than pip, where it is there."""
    return shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sgl_proxythinker.evaluation.environment", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="of the environment, as .venv-eval")
    python = make_environment(parser.parse_args(arguments).folder)
    sys.stdout.write(f"{python} -m sgl_proxythinker.evaluation --help\n")


if __name__ == "__main__":
    main()
