"""The page that says what a request may ask for says all of it."""

from pathlib import Path

import pytest

from sgl_proxythinker.architectures import ARCHITECTURES
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.policy.sampling_fields import SamplingFields

DOCS = Path(__file__).parent.parent / "docs"


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
