"""The docs say what the code does: tables are complete, links lead somewhere, the README can be read to its end."""

import email
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sgl_proxythinker.architectures import ARCHITECTURES
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.policy import page as refusals
from sgl_proxythinker.policy.sampling_fields import SamplingFields
from sgl_proxythinker.version import __version__

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "programs" / "README.md",
    ROOT / "patches" / "README.md",
    *sorted(DOCS.glob("*.md")),
]
MOST_LINES = 120  # of the README


@pytest.fixture(scope="module")
def page():
    return (DOCS / "requests.md").read_text()


@pytest.mark.parametrize("field", SamplingFields.model_fields)
def test_every_sampling_parameter_has_its_range(page, field):
    table = page.split("## Ranges of sampling parameters")[1].split("##")[0]
    assert f"`{field}`" in table


@pytest.mark.parametrize("name", Limits.model_fields)
def test_every_limit_has_its_flag_and_its_default(page, name):
    field = Limits.model_fields[name]
    default = "none" if field.default is None else "off" if field.default is False else f"{field.default:,}"
    assert f"| `--proxy-{name.replace('_', '-')}` | {default} | {field.description} |" in page


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_in_the_table_with_what_it_may_be(name):
    row = ARCHITECTURES[name]
    reads, small = "text, images" if row.pictures else "text", "yes" if row.is_small else "no"
    compared = "on a CPU and on GPUs" if row.was_on_gpu else "on a CPU"
    [line] = [line for line in (DOCS / "families.md").read_text().splitlines() if line.startswith(f"| `{name}`")]
    assert [part.strip() for part in line.split("|")[2:-1]] == ["yes", small, reads, compared]


def test_the_page_of_refusals_is_what_a_server_checks_with():
    assert (DOCS / "refusals.md").read_text() == refusals.page(), "write it anew: see its head"


def test_the_matrix_is_what_the_code_decides(sglang):
    """Kills: a route that stops to read a wish, or to refuse one, while the page still says so."""
    from sgl_proxythinker.frontend import matrix_page

    assert (DOCS / "matrix.md").read_text() == matrix_page.page(), "write it anew: see its head"


def test_the_sizes_of_serving_are_the_doctors():
    def rows(page: str) -> set[str]:
        return {line for line in (DOCS / page).read_text().splitlines() if re.match(r"\| \d+B \|", line)}

    assert rows("serving.md") and rows("serving.md") <= rows("doctor.md")


def test_the_readme_is_read_to_its_end_and_leads_to_every_page():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= MOST_LINES
    assert {page.name for page in DOCS.glob("*.md")} <= {Path(link).name for link in links_of(readme)}


SOURCE = "https://example.org/project"


@pytest.mark.parametrize("source", [None, SOURCE], ids=["no address", "an address"])
def test_an_index_shows_no_link_that_leads_nowhere(source, tmp_path):
    """Of what a build writes for it. Kills: a link to a file, one that loses its file's name, and another version's."""
    for name in ("README.md", "LICENSE", "NOTICE", "pinned.txt", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    pyproject = re.sub(r"^\[project\.urls\]\n(.+\n)*", "", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    urls = f'[project.urls]\nSource = "{source}"\n\n' if source else ""
    (tmp_path / "pyproject.toml").write_text(pyproject.replace("[project.scripts]", f"{urls}[project.scripts]"))
    (tmp_path / "sgl_proxythinker").mkdir()
    shutil.copy(ROOT / "sgl_proxythinker" / "version.py", tmp_path / "sgl_proxythinker")
    build = "from setuptools import build_meta; build_meta.prepare_metadata_for_build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    [metadata] = tmp_path.glob("*.dist-info/METADATA")
    shown = email.message_from_string(metadata.read_text()).get_payload()
    files = [link for link in links_of((ROOT / "README.md").read_text()) if not link.startswith("https://")]
    leads = [link for link in links_of(shown) if not link.startswith("https://")]
    assert len(files) > 30 and not leads
    tagged = [f"{SOURCE}/{kind}/v{__version__}/" for kind in ("blob", "raw")]
    for file in files:
        kind = file.endswith(".svg")
        assert f"({tagged[kind]}{file})" in shown if source else kind or file in shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_to_files_and_headings(page):
    for link in links_of(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not heading or heading in headings_of(target.read_text()), link


def links_of(text: str) -> list[str]:
    """Of pages and pictures, outside of code."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL))


def headings_of(text: str) -> set[str]:
    """As GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
