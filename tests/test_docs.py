"""The docs say what the code does: tables are complete, links lead somewhere, the README can be read to its end."""

import re
from pathlib import Path

import pytest

from sgl_proxythinker.architectures import ARCHITECTURES
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.policy import page as refusals
from sgl_proxythinker.policy.sampling_fields import SamplingFields

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
