"""`programs.explain` against a real server: what it asks, what it tells, and what it says when it can't."""

from __future__ import annotations

import json

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from browser import browsing
from servers import chat_messages
from sgl_proxythinker.programs.explain import main, page
from sgl_proxythinker.programs.explain_chart import draw
from sgl_proxythinker.programs.explanation import Answer, Explanation, Token, answer_from_meta
from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.server_process import reserve_port

pytestmark = pytest.mark.xdist_group("guided")

QUESTION = "Which is <b>larger</b>?"
ALPHAS = [1.5, 0.0]


@pytest.fixture
def pictures(tmp_path):
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    for seed, file in enumerate(files, start=81):
        random_picture(seed).save(file)
    return files


def run(url: str, pictures, *options: str) -> None:
    images = [part for file in pictures for part in ("--image", str(file))]
    main(["--url", url, "--question", QUESTION, "--instruction", "", "--max-tokens", "24", *images, *options])


def test_it_shows_the_answers_that_chat_gives(guided, reference, triple, pictures, tmp_path, capsys):
    run(guided.url, pictures, "--html", str(tmp_path / "out.html"), "--json", "--alphas", *map(str, ALPHAS))
    told = json.loads(capsys.readouterr().out)
    html = (tmp_path / "out.html").read_text(encoding="utf-8")
    models = {"base": str(triple.base), "expert": str(triple.expert), "amateur": str(triple.amateur)}
    assert {role: told[role] for role in models} == models
    assert [answer["alpha"] for answer in told["answers"]] == sorted(ALPHAS)
    messages = chat_messages(QUESTION, [random_picture(81), random_picture(82)])
    for answer, alpha in zip(told["answers"], sorted(ALPHAS), strict=True):
        extra = {"custom_params": {"proxy_alpha": alpha, "proxy_trace": True}}
        choice = guided.chat(messages, None, max_tokens=24, extra_body=extra)["choices"][0]
        wanted = answer_from_meta(choice["meta_info"], reference.tokenizer.batch_decode)
        assert (answer["alpha"], answer["law"]) == (wanted.alpha, None)
        assert [token["text"] for token in answer["tokens"]] == [token.text for token in wanted.tokens]
        assert [token["base_text"] for token in answer["tokens"]] == [token.base_text for token in wanted.tokens]
        assert {token["alpha"] for token in answer["tokens"]} == {alpha}
    assert html.count("data:image/webp;base64,") == 2 and "Which is &lt;b&gt;larger&lt;/b&gt;?" in html
    assert html.count('<section class="answer"') == 2


SCHEDULE = {"kind": "schedule", "points": [[0, -1.0], [4, 2.0], [12, 0.0]]}
STRENGTHS = [-1, -0.25, 0.5, 1.25, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, *[0] * 12]


def test_the_page_shows_the_strength_of_each_token_under_a_law(guided, tmp_path, capsys):
    """The whole way, from a request under a schedule to what a browser shows of it.

    Kills: the law left out of the request, the strength of the answer at each of its tokens, the law of another answer.
    """
    file = tmp_path / "out.html"
    asked = ("--html", str(file), "--alphas", "0", "0.5", "--law", json.dumps(SCHEDULE), "--plausible", "0.001")
    run(guided.url, [], *asked, "--clip", "50")
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
    run(guided.url, [], *html, "--json", "--law", json.dumps(after))
    *constants, under_law = json.loads(capsys.readouterr().out)["answers"]
    assert [(one["alpha"], one["law"]) for one in constants] == [(-0.5, None), (0.0, None), (1.5, None)]
    assert (under_law["alpha"], under_law["law"]) == (1.5, [after])
    assert {token["alpha"] for token in under_law["tokens"]} == {1.5, 0.25}
    nothing = json.dumps({"kind": "entropy", "above": 1})
    with pytest.raises(SystemExit, match="the law steers no token: give --alphas"):
        run(guided.url, [], *html[:2], "--alphas", "0", "--law", nothing)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--law", "entropy"], "'entropy' is no JSON"),
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


def test_it_explains_the_expert_that_is_named(guided, triple, experts, tmp_path, capsys):
    html = ("--html", str(tmp_path / "out.html"))
    run(guided.url, [], *html, "--json", "--alphas", "1.5", "--named-expert", "charts")
    told = json.loads(capsys.readouterr().out)
    assert (told["expert"], told["amateur"]) == tuple(map(str, experts["charts"]))
    params = {"proxy_expert": "charts", "proxy_alpha": 1.5}
    direct = guided.chat(chat_messages(QUESTION), max_tokens=24, extra_body={"custom_params": params})
    shown = "".join(token["text"] for token in told["answers"][0]["tokens"])
    assert shown.startswith(direct["choices"][0]["message"]["content"][:12])
    with pytest.raises(SystemExit, match="proxy_expert is 'maths', and this server's experts are"):
        run(guided.url, [], *html, "--named-expert", "maths")


def test_without_json_it_says_how_often_the_base_was_overruled(guided, tmp_path, capsys):
    run(guided.url, [], "--html", str(tmp_path / "out.html"), "--alphas", "2")
    printed = capsys.readouterr().out
    assert "alpha 2:" in printed and "of 24 tokens are not the base's first" in printed


def test_what_can_not_be_explained_says_why(guided, pictures, tmp_path, capsys):
    html = ("--html", str(tmp_path / "out.html"))
    with pytest.raises(SystemExit, match="no server answers at"):
        run(f"http://127.0.0.1:{reserve_port()}", pictures, *html)
    with pytest.raises(SystemExit, match="longer than"):
        main(["--url", guided.url, "--question", "word " * 5000, *html])
    assert not (tmp_path / "out.html").exists()
    with pytest.raises(SystemExit):
        run(guided.url, pictures, "--html", str(tmp_path / "nowhere" / "out.html"))
    assert "there is no folder" in capsys.readouterr().err


def token(**numbers) -> Token:
    told = {"text": " x", "base_text": "y", "flipped": True, "expert_logprob": None, "amateur_logprob": None}
    unknown = dict.fromkeys(("js_nats", "alpha", "base_entropy_nats"))
    return Token(**{**told, **unknown, "base_logprob": -1.0, "fused_logprob": -1.0, **numbers})


@pytest.mark.parametrize(
    ("pull", "shade"),
    [(0.0, ""), (0.09, ""), (0.1, "up1"), (0.5, "up2"), (1.2, "up3"), (2.4, "up4"), (-0.1, "down1"), (-9.0, "down4")],
)
def test_the_shade_is_the_factor_between_guided_and_base(pull, shade):
    assert token(fused_logprob=-1.0 + pull).shade == shade


@pytest.mark.parametrize(("pull", "times"), [(0.0, "×1.0"), (3.0, "×20"), (9.0, "×8,103"), (900.0, "over ×10,000")])
def test_the_factor_is_told_in_few_digits(pull, times):
    assert token(fused_logprob=0.0, base_logprob=-pull).times == times


def test_numbers_that_are_missing_and_answers_without_a_token_make_a_page():
    law = [{"kind": "entropy", "above": 0.7}]
    answers = [
        Answer(alpha=0.0, tokens=[]), Answer(alpha=None, law=law, tokens=[]),
        Answer(alpha=1.0, tokens=[token(), token(js_nats=0.1), token(text="")]),
        Answer(alpha=1.0, law=law, tokens=[token(), token(alpha=0.0), token(alpha=1.0)]),
    ]  # fmt: skip
    about = {"question": "?", "pictures": [], "base": "b", "expert": "e", "amateur": "a"}
    html = page(Explanation(answers=answers, **about))
    assert "None" not in html and '"nan' not in html.lower()
    assert Explanation(answers=[], **about).lowest_logprob == -1.0


@pytest.mark.parametrize(
    ("alphas", "path", "ends"),
    [
        ([0.0, 0.0], "M0.5 100.00h0 L1.5 100.00", (0.0, 1.0)),
        ([1.0, 0.5], "M0.5 0.00h0 L1.5 50.00", (0.0, 1.0)),
        ([-2.0, None, 2.0], "M0.5 100.00h0 M2.5 0.00h0", (-2.0, 2.0)),
        ([-2.0, -1.0], "M0.5 100.00h0 L1.5 50.00", (-2.0, 0.0)),
    ],
)
def test_strengths_are_drawn_from_the_weakest_to_the_strongest_with_0_between(alphas, path, ends):
    chart = draw(Answer(alpha=None, law=[], tokens=[token(alpha=alpha) for alpha in alphas]), -1.0)
    assert chart.strength == path and (chart.weakest, chart.strongest) == ends
