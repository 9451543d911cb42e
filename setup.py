"""The README as a package index shows it, where a link to a file leads nowhere. All else is in pyproject.toml.

With `Source` among the urls of pyproject.toml links lead there, to the tag of this version; until it is named, a link
is its text with the file's name behind it, and a picture is left out.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!https?://)(?P<file>[^)\s]+)\)")


def described(readme: str, source: str | None, version: str) -> str:
    """The text of README.md without relative links.

    Args:
        source: the address of the repository, on a host that shows files at `blob/TAG` and `raw/TAG`.
    """

    def absolute(link: re.Match[str]) -> str:
        picture, text, file = link.group("picture", "text", "file")
        if source:
            return f"{picture}[{text}]({source.rstrip('/')}/{'raw' if picture else 'blob'}/v{version}/{file})"
        return "" if picture else text if text == file else f"{text} (`{file}`)"

    return LINK.sub(absolute, readme)


def written(file: str) -> str:
    return (HERE / file).read_text(encoding="utf-8")


project = tomllib.loads(written("pyproject.toml"))["project"]
[version] = re.findall(r'__version__ = "(.+)"', written("sgl_proxythinker/version.py"))
setup(
    long_description=described(written("README.md"), project.get("urls", {}).get("Source"), version),
    long_description_content_type="text/markdown",
)
