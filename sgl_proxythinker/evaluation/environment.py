"""Make the environment that an evaluation runs in: `python -m sgl_proxythinker.evaluation.environment .venv-eval`.

inspect-ai's packages are newer than those that SGLang 0.5.17 pins. An environment of its own also keeps the client away
from the server's. `requirements.txt` pins every package; this one is linked into it, from a checkout or a wheel.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import sgl_proxythinker

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


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
    link.symlink_to(Path(sgl_proxythinker.__file__).resolve().parent)
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
