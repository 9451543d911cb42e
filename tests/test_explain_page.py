"""The page of `programs.explain` in a real browser: what it shows, to whom, and that it loads nothing.

The screenshots that the tests leave in their temporary folders are for a person's eye.
"""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser import browsing
from explanations import HOSTILE, example
from sgl_proxythinker.programs.explain import page

pytestmark = pytest.mark.xdist_group("browser")

PHONE, DESK = (360, 740), (1200, 900)


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture(scope="module")
def explanation():
    return example()


@pytest.fixture(scope="module")
def address(explanation, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(page(explanation), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def opened(window, address):
    """The page on a phone, in light colours; afterwards it must have loaded nothing else and complained of nothing."""
    window.look_like(*PHONE)
    window.get(address)
    yield window
    assert window.complaints() == []
    assert set(window.requested()) == {address}


def shown_text(window) -> str:
    return window.js("document.querySelector('.answer:not([hidden]) .tokens').textContent")


def press(window, *keys: str) -> None:
    for key in keys:
        window.switch_to.active_element.send_keys(key)


def focused(window) -> str:
    return window.js("document.activeElement.textContent")


def tip(window) -> str:
    """What is explained at the moment, "" for nothing."""
    return window.find_element(By.ID, "tip").text


def background(window, selector: str) -> str:
    return window.js(f"getComputedStyle(document.querySelector({selector!r})).backgroundColor")


def test_the_slider_changes_what_is_shown(opened, explanation):
    texts = ["".join(token.text for token in answer.tokens) for answer in explanation.answers]
    assert len(set(texts)) == 3
    slider = opened.find_element(By.ID, "alpha")
    assert shown_text(opened) == texts[2] and "α = 1" in opened.find_element(By.ID, "alpha-now").text
    slider.send_keys(Keys.ARROW_LEFT)
    assert shown_text(opened) == texts[1]
    assert slider.get_attribute("aria-valuetext") == "alpha 0.5"
    slider.send_keys(Keys.HOME)
    assert shown_text(opened) == texts[0]
    assert "the base alone" in opened.find_element(By.CSS_SELECTOR, ".answer:not([hidden]) h2").text
    assert len(opened.find_elements(By.CSS_SELECTOR, ".answer:not([hidden])")) == 1
    assert opened.find_element(By.CSS_SELECTOR, ".answer:not([hidden]) .tokens").is_displayed()


def test_the_keyboard_reaches_every_token_and_what_the_base_would_have_said(opened):
    press(opened, Keys.TAB)
    assert opened.switch_to.active_element.get_attribute("id") == "alpha"
    press(opened, Keys.TAB)
    assert focused(opened) == "Let"
    assert "Instead of “Let” the base would have said “The”" in tip(opened) and "times more likely" in tip(opened)
    described = opened.switch_to.active_element.get_attribute("aria-describedby")
    assert described == "tip"
    assert opened.js("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus must be seen"
    press(opened, Keys.ARROW_RIGHT)
    assert focused(opened) == "me" and "The base would have said “me” too" in tip(opened)
    press(opened, Keys.ARROW_DOWN)
    assert focused(opened) in ("The", "picture")
    press(opened, Keys.ARROW_UP, Keys.HOME)
    assert focused(opened) == "Let"
    press(opened, Keys.END)
    assert focused(opened) == "<|im_end|>"
    press(opened, Keys.ESCAPE)
    assert tip(opened) == ""
    press(opened, Keys.ENTER)
    assert "he base would have said" in tip(opened)
    press(opened, Keys.TAB)
    assert tip(opened) == "" and opened.switch_to.active_element.tag_name == "button"


def test_a_token_says_its_strength_and_how_unsure_the_base_is(opened, explanation):
    """Kills: the strength of the answer, or of another token, in the place of its own."""
    press(opened, Keys.TAB, Keys.TAB)
    for token in explanation.answers[2].tokens[:3]:
        assert f"Strength α = {token.alpha:g}; the base’s entropy {token.base_entropy_nats:.2f} nats" in tip(opened)
        press(opened, Keys.ARROW_RIGHT)
    assert {token.alpha for token in explanation.answers[2].tokens[:3]} == {0.25, 1.0}
    opened.find_element(By.CSS_SELECTOR, ".answer:not([hidden]) summary").click()
    row = opened.find_element(By.CSS_SELECTOR, ".answer:not([hidden]) tbody tr").text
    assert row.endswith(f"1.00 {explanation.answers[2].tokens[0].base_entropy_nats:.2f}")


def test_the_flipped_tokens_are_marked_and_can_be_stepped_through(opened, explanation):
    flipped = [token for token in explanation.answers[2].tokens if token.flipped]
    marks = opened.find_elements(By.CSS_SELECTOR, ".answer:not([hidden]) .tokens .flipped")
    assert [mark.text for mark in marks] == [token.word for token in flipped]
    assert all(mark.value_of_css_property("text-decoration-line") == "underline" for mark in marks), "not colour alone"
    assert marks[0].accessible_name == "Let, flipped; the base would have said The"
    forward = opened.find_element(By.CSS_SELECTOR, ".answer:not([hidden]) [data-step='1']")
    seen = []
    for _ in range(len(flipped) + 1):
        forward.click()
        seen.append(focused(opened))
        base_text = next(token.base_text for token in flipped if token.word == seen[-1])
        assert f"the base would have said “{base_text.strip()}”" in tip(opened)
    assert seen == [token.word for token in flipped] + ["Let"], "in order, and around"
    opened.find_element(By.CSS_SELECTOR, ".answer:not([hidden]) .show-base").click()
    content = "getComputedStyle(document.querySelector('.answer:not([hidden]) .flipped'), '::after').content"
    assert opened.js(content) == '"The"'


def test_touch_and_mouse_explain_too(opened):
    tokens = opened.find_elements(By.CSS_SELECTOR, ".answer:not([hidden]) .tokens .token")
    tokens[0].click()
    assert "Instead of “Let” the base would have said “The”" in tip(opened)
    plot = opened.find_element(By.CSS_SELECTOR, ".answer:not([hidden]) .plot")
    plot.click()
    assert "he base would have said" in tip(opened)
    assert opened.js("document.querySelector('.answer:not([hidden]) .cursor').hidden") is False
    # Also when the click has scrolled the page, which it is told later.
    opened.execute_script("window.dispatchEvent(new Event('scroll'))")
    assert "he base would have said" in tip(opened)


@pytest.mark.parametrize("change", ["scroll", "resize"])
def test_what_is_explained_stays_when_the_window_changes(opened, change):
    press(opened, Keys.TAB, Keys.TAB)
    opened.execute_script(f"window.dispatchEvent(new Event('{change}'))")
    assert "Instead of “Let”" in tip(opened)


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_runs_over_the_edge(opened, size):
    """Neither the page nor, anywhere in the answer, the explanation."""
    opened.look_like(*size)
    for details in opened.find_elements(By.CSS_SELECTOR, ".answer:not([hidden]) summary"):
        details.click()
    assert opened.js("document.documentElement.scrollWidth") <= size[0]
    tokens = opened.find_elements(By.CSS_SELECTOR, ".answer:not([hidden]) .tokens .token")
    for token in tokens[:: max(1, len(tokens) // 12)] + tokens[-1:]:
        opened.execute_script("arguments[0].focus()", token)
        box = opened.js("(({left, right, top, bottom}) => ({left, right, top, bottom}))(tip.getBoundingClientRect())")
        assert 0 <= box["left"] < box["right"] <= size[0] and 0 <= box["top"] < box["bottom"] <= size[1], box


def test_a_dark_room_gets_a_dark_page(opened):
    def luminance() -> float:
        channels = background(opened, "body").removeprefix("rgb(").removesuffix(")").split(",")
        return sum(map(int, channels)) / 3

    assert luminance() > 230
    opened.look_like(*PHONE, scheme="dark")
    assert luminance() < 40


CONTRASTS = """(() => {
  const channel = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => { const [r, g, b] = rgb.match(/\\d+/g).map(Number).map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const painted = (element) => { const color = getComputedStyle(element).backgroundColor; return color === "rgba(0, 0, 0, 0)" ? painted(element.parentElement) : color; };
  const ratio = (element) => { const [a, b] = [luminance(getComputedStyle(element).color), luminance(painted(element))].sort(); return (b + 0.05) / (a + 0.05); };
  return [...document.querySelectorAll("h1, h2, p, dt, dd, label, output, button, li, figcaption, .ticks span, .ends span, .answer:not([hidden]) .token")].map((e) => [e.className + ":" + e.textContent.slice(0, 20), ratio(e)]);
})()"""  # noqa: E501


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(opened, scheme):
    """At least 4.5 to 1, as WCAG asks of text, on every shade."""
    opened.look_like(*PHONE, scheme=scheme)
    contrasts = opened.js(CONTRASTS)
    assert len(contrasts) > 80
    assert [one for one in contrasts if one[1] < 4.5] == []


def test_what_models_write_stays_text(opened, explanation):
    """Markup is shown, not obeyed; and if it were not escaped, the page's own policy would not run it."""
    text = shown_text(opened)
    assert all(piece in text for piece in HOSTILE)
    inside = "document.querySelectorAll('.tokens script, .tokens img, .tokens b').length"
    assert opened.js(inside) == 0
    opened.execute_script(
        "const s = document.createElement('script'); s.textContent = 'ran = 1'; document.body.append(s)"
    )
    assert opened.js("typeof ran") == "undefined"
    [complaint] = opened.complaints()
    assert "Content Security Policy" in complaint


def test_it_says_what_it_is_to_those_who_do_not_see_it(opened):
    for selector, role in (("#alpha", "slider"), (".tokens", "group"), (".plot svg", "image"), (".token", "button")):
        element = opened.find_element(By.CSS_SELECTOR, f".answer:not([hidden]) {selector}, {selector}[type=range]")
        assert (element.aria_role, bool(element.accessible_name)) == (role, True), selector
    tokens = opened.find_elements(By.CSS_SELECTOR, ".answer:not([hidden]) .tokens .token")
    names = [token.accessible_name for token in tokens]
    assert all(names) and {"line end", "part of a character", "me", "🙂"} <= set(names)
    pictures = opened.find_elements(By.CSS_SELECTOR, ".pictures img")
    assert [picture.accessible_name for picture in pictures] == ["Picture 1 of 1 that the question is about"]
    assert opened.js("document.documentElement.lang") == "en"
    assert opened.js("document.querySelector('.pictures img').naturalWidth") == 224


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_it_can_be_looked_at(opened, size, scheme, tmp_path):
    """Saves what the page looks like, with a token explained."""
    opened.look_like(*size, scheme=scheme)
    opened.find_element(By.CSS_SELECTOR, ".answer:not([hidden]) [data-step='1']").click()
    opened.save_screenshot(str(tmp_path / f"{size[0]}-{scheme}.png"))
    assert (tmp_path / f"{size[0]}-{scheme}.png").stat().st_size > 20_000


def test_one_alpha_needs_no_slider(window, explanation, tmp_path):
    alone = explanation.model_copy(update={"answers": explanation.answers[1:2], "pictures": []})
    (tmp_path / "page.html").write_text(page(alone), encoding="utf-8")
    window.get((tmp_path / "page.html").as_uri())
    assert window.find_elements(By.ID, "alpha") == [] and "Let me look" in shown_text(window)
    assert window.complaints() == []
