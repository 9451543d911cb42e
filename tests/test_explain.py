"""`programs.explain` against a real server: what it asks, what it tells, and what it says when it can't."""

from __future__ import annotations

import json

import pytest

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
