"""Every query of the dashboard and of the alerts asks for metrics and labels that a live `/metrics` shows."""

import re

import promql_parser as promql
import pytest

from live_metrics import Sample, samples_of
from queries import DOCS, VARIABLES, complaints, dashboard, filled_in, of_alerts, of_dashboard

SPECULATION = "Speculation (--proxy-speculate)"  # of a server that speculates: tests/test_speculation.py
QUERIES = [query for query in of_dashboard() + of_alerts() if query.row != SPECULATION]
SHOWN = [
    Sample("a_total", {"x": "1", "y": "2"}, 0.0),
    Sample("b_total", {"x": "1"}, 0.0),
    Sample("h_bucket", {"le": "1"}, 0.0),
]


@pytest.fixture(scope="module")
def samples(guided):
    params = {"max_new_tokens": 2, "custom_params": {"proxy_alpha": 0.5}}
    guided.generate(text="Hi", sampling_params=params)
    guided.flush_cache()  # it has ended and is counted
    return samples_of(guided)


@pytest.mark.xdist_group("guided")
@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_it_asks_for_what_there_is(query, samples):
    assert not complaints(query, samples)


@pytest.mark.parametrize("query", of_dashboard() + of_alerts(), ids=lambda query: query.where)
def test_it_is_promql(query):
    promql.parse(filled_in(query.expr))
    assert "$" not in filled_in(query.expr), f"a variable that is none of {', '.join(VARIABLES)}"


@pytest.mark.parametrize(
    ("expr", "legend", "complaint"),
    [
        ("rate(c_total[1m])", "", "c_total is not shown"),
        ('sum (rate(a_total{z="1"}[1m]))', "", "a_total has no label z"),
        ('a_total{y="3"}', "", 'a_total has no y="3"'),
        ("sum by (z) (a_total)", "", "has no label z"),
        ("sum by (x) (a_total)", "{{y}}", "its legend names y"),
        ("sum by (x, y) (a_total) / sum by (x) (b_total)", "", "match nothing"),
        ("histogram_quantile(0.5, sum by (le) (rate(h_bucket[1m])))", "{{le}}", "its legend names le"),
    ],
)
def test_what_is_not_there_is_found(expr, legend, complaint):
    """The reader of queries is able to fail."""
    query = of_dashboard()[0]._replace(expr=expr, legend=legend)
    [found] = complaints(query, SHOWN)
    assert complaint in found


@pytest.mark.parametrize(
    ("expr", "legend"),
    [
        ("sum by (x) (rate(a_total[1m])) / sum by (x) (b_total) > 0.5", "{{x}}"),
        ('a_total{x=~".*", y!="7", instance="here"}', "{{y}} of {{job}}"),
        ("histogram_quantile(0.5, sum by (le) (rate(h_bucket[1m])))", "p50"),
    ],
)
def test_what_is_there_is_no_complaint(expr, legend):
    assert not complaints(of_dashboard()[0]._replace(expr=expr, legend=legend), SHOWN)


def test_grafana_asks_which_data_source_it_is_and_every_panel_uses_it():
    """Kills: the id of a data source of one installation."""
    board = dashboard()
    names = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert names["datasource"]["type"] == "datasource" and names["datasource"]["query"] == "prometheus"
    asked = [*names.values(), *board["panels"], *(one for panel in board["panels"] for one in panel.get("targets", ()))]
    given = {one["datasource"]["uid"] for one in asked if "datasource" in one}
    assert given == {"${datasource}"}
    assert all("datasource" in panel for panel in board["panels"] if panel["type"] != "row")


def test_panels_have_numbers_and_places_of_their_own():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) < 24


@pytest.mark.xdist_group("guided")
def test_the_page_names_what_there_is(samples):
    """Kills: a number of SGLang's that another release has, or that it shows with another flag only."""
    names = {one.name for one in samples} | {re.sub("_(bucket|sum|count)$", "", one.name) for one in samples}
    speculating = {"sglang:spec_verify_calls_total"}
    named = set(re.findall(r"sglang:\w*[a-z]\b(?!_)", (DOCS / "metrics.md").read_text())) - speculating
    assert len(named) > 20 and named <= names


@pytest.mark.xdist_group("guided")
def test_its_variables_are_labels_that_there_are(samples):
    queries = [one["query"]["query"] for one in dashboard()["templating"]["list"] if one["type"] == "query"]
    for selector, label in (re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups() for query in queries):
        query = of_dashboard()[0]._replace(expr=f"sum by ({label}) ({selector})", legend=f"{{{{{label}}}}}")
        assert not complaints(query, samples)
