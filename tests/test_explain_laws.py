"""`programs.explain` under a law and cuts: from what it asks of a real server to what a real browser shows of it."""

from __future__ import annotations

import json

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from browser import browsing
from sgl_proxythinker.programs.explain import main

pytestmark = pytest.mark.xdist_group("guided")

SCHEDULE = {"kind": "schedule", "points": [[0, -1.0], [4, 2.0], [12, 0.0]]}
STRENGTHS = [-1, -0.25, 0.5, 1.25, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, *[0] * 12]


def run(url: str, *options: str) -> None:
    main(["--url", url, "--question", "Which is <b>larger</b>?", "--instruction", "", "--max-tokens", "24", *options])


def test_the_page_shows_the_strength_of_each_token_under_a_law(guided, tmp_path, capsys):
    """The whole way, from a request under a schedule to what a browser shows of it.

    Kills: the law left out of the request, the strength of the answer at each of its tokens, the law of another answer.
    """
    file = tmp_path / "out.html"
    asked = ("--html", str(file), "--alphas", "0", "0.5", "--law", json.dumps(SCHEDULE), "--plausible", "0.001")
    run(guided.url, *asked, "--clip", "50")
    assert "law: " in capsys.readouterr().out
    with browsing(tmp_path / "profile") as window:
        window.look_like(1200, 900)
        window.get(file.as_uri())
        slider = window.find_element(By.ID, "alpha")
        # Set by the page's script, which a browser on a busy machine may not have reached.
        WebDriverWait(window, 60).until(lambda _: slider.get_attribute("aria-valuetext") == "law")
        part = "document.querySelector('.answer:not([hidden])')"
        assert window.js(f"{part}.querySelector('h2').textContent") == "Answer under a law"
        assert json.loads(window.js(f"{part}.querySelector('.law').textContent")) == SCHEDULE
        facts = window.js(f"[...{part}.querySelectorAll('.facts div')].map((one) => one.textContent)")
        assert {"steered12", "clip50", "plausible0.001"} <= set(facts)
        strengths = window.js(f"[...{part}.querySelectorAll('.tokens .token')].map((one) => one.dataset.strength)")
        assert list(map(float, strengths)) == pytest.approx(STRENGTHS, abs=1e-5)
        [drawn] = window.js(f"[...{part}.querySelectorAll('.strength-line')].map((one) => one.getAttribute('d'))")
        heights = [float(point.split("h")[0].split()[1]) for point in drawn[1:].split("L")]
        assert heights == pytest.approx([100 * (2 - one) / 3 for one in STRENGTHS], abs=0.01)
        ends = window.js(f"[...{part}.querySelectorAll('.ends')].map((one) => one.innerText.split('\\n'))")
        assert ["α = 2", "α = -1"] in ends
        window.find_element(By.CSS_SELECTOR, ".answer:not([hidden]) .tokens .token").click()
        assert "Strength α = -1;" in window.find_element(By.ID, "tip").text
        of_constants = "document.querySelectorAll('.answer[hidden] .strength-line, .answer[hidden] .law').length"
        assert window.js(of_constants) == 0
        assert window.complaints() == []


def test_a_law_takes_the_strongest_constant_and_steers(guided, tmp_path, capsys):
    html = ("--html", str(tmp_path / "out.html"), "--alphas", "0", "1.5", "-0.5")
    after = {"kind": "schedule", "after": {"text": "a", "alpha": 0.25}}
    run(guided.url, *html, "--json", "--law", json.dumps(after))
    *constants, under_law = json.loads(capsys.readouterr().out)["answers"]
    assert [(one["alpha"], one["law"]) for one in constants] == [(-0.5, None), (0.0, None), (1.5, None)]
    assert (under_law["alpha"], under_law["law"]) == (1.5, [after])
    assert {token["alpha"] for token in under_law["tokens"]} == {1.5, 0.25}
    nothing = json.dumps({"kind": "entropy", "above": 1})
    with pytest.raises(SystemExit, match="the law steers no token: give --alphas"):
        run(guided.url, *html[:2], "--alphas", "0", "--law", nothing)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--law", "entropy"], "'entropy' is no JSON"),
        (["--law", "[]"], "'[]' has no law"),
        (["--law", "null"], "'null' has no law"),
        (["--law", '{"kind": "magic"}'], "there are divergence, entropy, schedule"),
        (["--law", '{"kind": "schedule", "points": [[0, 99]]}'], "points"),
        (["--clip", "0"], "send a number of logits above 0"),
        (["--plausible", "2"], "from 0, which rules nothing out"),
        (["--plausible", "few"], "'few' is no number"),
    ],
)
def test_what_is_no_law_and_no_cut_is_a_sentence(options, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--url", "http://127.0.0.1:1", "--question", "?", "--html", str(tmp_path / "out.html"), *options])
    assert sentence in " ".join(capsys.readouterr().err.split())
