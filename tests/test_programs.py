"""SGLang programs with `proxy_gen`, on a real server: the strength of each call, pictures, turns, choices, errors."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
import sglang as sgl
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint
from sglang.lang.chat_template import get_chat_template
from sglang.lang.choices import greedy_token_selection, unconditional_likelihood_normalized

from cases import ROUNDING, logprob_tolerance
from servers import chat_messages
from sgl_proxythinker import ProxyBackend, proxy_gen
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.server_process import reserve_port

pytestmark = pytest.mark.xdist_group("guided")

GREEDY = {"temperature": 0, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def backend(guided):
    return ProxyBackend(guided.url)


@pytest.fixture(autouse=True)
def quiet():
    """The interpreter warns with a traceback of what it then keeps as the program's error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Error in stream_executor")
        yield


def direct(guided, text, alpha=None, images=None, **params):
    """The same request without a program."""
    params = {**GREEDY, **params} | ({} if alpha is None else {"custom_params": {"proxy_alpha": alpha}})
    return guided.generate(text=text, image_data=images, sampling_params=params)


@sgl.function
def two_strengths(s, question):
    s += question
    s += proxy_gen("strong", alpha=3.0, max_tokens=12, temperature=0)
    s += " So: "
    s += proxy_gen("base", alpha=0, max_tokens=12, temperature=0)
    s += " And: "
    s += sgl.gen("default", max_tokens=12, temperature=0)


def test_each_call_has_its_strength_and_the_next_one_reads_on(guided, backend):
    state = two_strengths.run(question="Count", backend=backend)
    text = "Count"
    for name, alpha, after in (("strong", 3.0, " So: "), ("base", 0.0, " And: "), ("default", 0.5, "")):
        wanted = direct(guided, text, alpha)
        assert state[name] == wanted["text"]
        assert state.get_meta_info(name)["proxy_alpha"] == alpha
        text += state[name] + after
    assert state.text() == text
    assert len({state["strong"], state["base"], state["default"]}) == 3


@pytest.mark.parametrize("default_alpha", [0, 2.5])
def test_a_backend_has_a_default_of_its_own(guided, default_alpha):
    state = two_strengths.run(question="Count", backend=ProxyBackend(guided.url, default_alpha=default_alpha))
    told = [state.get_meta_info(name)["proxy_alpha"] for name in ("strong", "base", "default")]
    assert told == [3.0, 0.0, default_alpha]


def test_a_batch_runs_every_program(guided, backend):
    questions = ["Count", "Tell", "Why"]
    states = two_strengths.run_batch([{"question": one} for one in questions], backend=backend, progress_bar=True)
    assert [state["strong"] for state in states] == [direct(guided, one, 3.0)["text"] for one in questions]


def test_the_strength_may_be_an_argument_of_a_batch(guided, backend):
    """SGLang traces a batch with stand-ins for arguments before it runs anything."""

    @sgl.function
    def asked(s, alpha):
        s += "Count"
        s += proxy_gen("answer", alpha=alpha, max_tokens=12, temperature=0)

    states = asked.run_batch([{"alpha": alpha} for alpha in (0.0, 3.0)], backend=backend)
    assert [state["answer"] for state in states] == [direct(guided, "Count", alpha)["text"] for alpha in (0.0, 3.0)]


def test_the_amateur_may_have_a_weight_of_its_own(guided):
    """Beside the call's alpha, and beside the backend's."""
    backend = ProxyBackend(guided.url, default_alpha=2.0)

    @sgl.function
    def ablated(s, **weights):
        s += "Count"
        s += proxy_gen("answer", amateur_alpha=0, max_tokens=12, temperature=0, **weights)

    for weights, alpha in (({"alpha": 3.0}, 3.0), ({}, 2.0)):
        state = ablated.run(backend=backend, **weights)
        meta = state.get_meta_info("answer")
        assert (meta["proxy_alpha"], meta["proxy_amateur_alpha"]) == (alpha, 0.0)
        wanted = direct(guided, "Count", custom_params={"proxy_alpha": alpha, "proxy_amateur_alpha": 0})
        assert state["answer"] == wanted["text"] != direct(guided, "Count", alpha)["text"]

    @sgl.function
    def chosen(s, **weights):
        s += "Count"
        s += proxy_gen("answer", choices=[" one", " two"], **weights)

    def scores(**weights):
        return chosen.run(backend=backend, **weights).get_meta_info("answer")["normalized_prompt_logprobs"]

    assert scores(amateur_alpha=0) == pytest.approx(scores(alpha=2.0, amateur_alpha=0), abs=ROUNDING)
    assert scores(amateur_alpha=0) != pytest.approx(scores(alpha=2.0), abs=5e-2)
    with pytest.raises(RequestError, match="proxy_amateur_alpha is 11"):
        proxy_gen("answer", amateur_alpha=11)


def test_a_stream_has_the_same_text_and_strength(guided, backend):
    state = two_strengths.run(question="Count", backend=backend, stream=True)
    assert "".join(state.text_iter("strong")) == direct(guided, "Count", 3.0)["text"]
    assert state.get_meta_info("strong")["proxy_alpha"] == 3.0


def test_a_stream_of_several_answers_is_refused(backend):
    @sgl.function
    def several(s):
        s += "Count "
        s += proxy_gen("answer", alpha=1.0, n=2, max_tokens=4)

    state = several.run(backend=backend, stream=True)
    state.sync()
    assert "n is 2, but a stream has one answer" in str(state.error())


def test_arguments_of_gen_are_those_of_proxy_gen(guided, backend):
    @sgl.function
    def constrained(s):
        s += "Count "
        s += proxy_gen("number", alpha=2.0, regex=r"[0-9]{3}", max_tokens=8, temperature=0)
        s += proxy_gen("typed", alpha=2.0, dtype=int, max_tokens=4, temperature=0)
        s += proxy_gen("two", alpha=2.0, n=2, max_tokens=4, temperature=0)

    state = constrained.run(backend=backend)
    assert state["number"] == direct(guided, "Count ", 2.0, regex=r"[0-9]{3}", max_new_tokens=8)["text"]
    assert state["number"].isdigit() and state["typed"].strip().lstrip("+-").isdigit()
    assert len(state["two"]) == 2


def test_a_fork_shares_its_prefix(guided, backend):
    @sgl.function
    def forked(s):
        s += "One two three four five six seven eight nine ten, and what comes then? "
        forks = s.fork(3)
        for alpha, fork in zip((0.0, 1.0, 4.0), forks, strict=True):
            fork += proxy_gen("answer", alpha=alpha, max_tokens=8, temperature=0)
        forks.join()

    state = forked.run(backend=backend)
    start = "One two three four five six seven eight nine ten, and what comes then? "
    assert state["answer"] == [direct(guided, start, alpha, max_new_tokens=8)["text"] for alpha in (0.0, 1.0, 4.0)]

    @sgl.function
    def counted(s):
        s += start
        s += proxy_gen("answer", alpha=1.0, max_tokens=1)

    meta = counted.run(backend=backend).get_meta_info("answer")
    assert meta["cached_tokens"] >= meta["prompt_tokens"] - 1


# Turns and pictures


@sgl.function
def chat(s, pictures, questions, alpha):
    for question in questions:
        content = sgl.image(pictures.pop(0)) + question if pictures else question
        s += sgl.user(content)
        s += sgl.assistant(proxy_gen("answer", alpha=alpha, max_tokens=6, temperature=0))


def test_a_program_renders_what_chat_completions_renders(guided, backend):
    """The same token ids, over several turns with a picture each."""
    pictures = [random_picture(1), random_picture(2, 112, 84)]
    state = chat.run(pictures=list(pictures), questions=["What is it?", "And this?"], alpha=2.0, backend=backend)
    first, second = chat_messages("What is it?", pictures[:1]), chat_messages("And this?", pictures[1:])
    opened = "<|im_start|>assistant\n"
    one = state.text().split(opened)[1].split("<|im_end|>")[0]
    history = [*first, {"role": "assistant", "content": one}, *second]
    text = state.text()
    prompt = text[: text.rindex(opened) + len(opened)]
    tokens = guided.post("/tokenize", {"prompt": prompt}).json()["tokens"]
    assert tokens == guided.post("/tokenize", {"messages": history}).json()["tokens"]
    answer = guided.chat(history, 2.0, max_tokens=6)["choices"][0]
    assert state["answer"] == answer["message"]["content"]
    assert state.get_meta_info("answer")["prompt_tokens"] == answer["meta_info"]["prompt_tokens"]


def test_the_order_of_pictures_counts(backend):
    def answers(*pictures):
        @sgl.function
        def both(s):
            s += sgl.user(sgl.image(pictures[0]) + sgl.image(pictures[1]) + "Which?")
            s += sgl.assistant(proxy_gen("answer", alpha=2.0, max_tokens=12, temperature=0))

        return both.run(backend=backend)["answer"]

    assert answers(random_picture(1), random_picture(2)) != answers(random_picture(2), random_picture(1))


def test_the_template_is_the_servers_own(backend):
    template = backend.get_chat_template()
    known = get_chat_template("qwen2-vl")
    assert template.default_system_prompt == known.default_system_prompt
    assert template.role_prefix_and_suffix == known.role_prefix_and_suffix
    assert template.image_token == known.image_token


# Choices


def chosen(backend, alpha, choices, pictures=(), **options):
    @sgl.function
    def choose(s):
        for one in pictures:
            s += sgl.image(one)
        s += "The answer is"
        s += proxy_gen("choice", alpha=alpha, choices=choices, **options)

    state = choose.run(backend=backend)
    assert state.error() is None, state.error()
    return state["choice"], state.get_meta_info("choice")


@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("pictures", [(), (random_picture(1), random_picture(5))], ids=["text", "pictures"])
def test_choices_are_scored_under_the_fused_distribution(backend, reference, alpha, pictures):
    """Against the oracle: the sum of log p over a choice's tokens, given the prompt and the tokens before."""
    choices = [" right", " wrong, and the square is not", " 42"]
    choice, meta = chosen(backend, alpha, choices, pictures)
    prompt = backend.chat_template.image_token * len(pictures) + "The answer is"
    ids = reference.tokenizer(prompt)["input_ids"]
    best = []
    for one, scored in zip(choices, meta["input_token_logprobs"], strict=True):
        tokens = reference.tokenizer(prompt + one)["input_ids"][len(ids) :]
        assert [token for _, token, _ in scored] == tokens
        rows = reference.fused_logits(prompt, list(pictures), tokens[:-1], alpha=alpha).log_softmax(-1)
        wanted = [rows[at, token].item() for at, token in enumerate(tokens)]
        assert [logprob for logprob, _, _ in scored] == pytest.approx(wanted, abs=logprob_tolerance(alpha))
        best.append(sum(wanted) / len(wanted))
    assert choice == choices[best.index(max(best))]


@pytest.mark.parametrize("method", [greedy_token_selection, unconditional_likelihood_normalized])
def test_other_ways_to_choose_take_the_same_scores(backend, method):
    choice, meta = chosen(backend, 2.0, [" right", " 42"], choices_method=method)
    assert choice in (" right", " 42") and len(meta["input_token_logprobs"]) == 2


# Errors


@pytest.mark.parametrize("alpha", [11, float("nan"), "much", True])
def test_a_strength_that_is_none_is_refused_where_it_is_written(alpha):
    with pytest.raises(RequestError, match="proxy_alpha is"):
        proxy_gen("answer", alpha=alpha)
    with pytest.raises(RequestError, match="proxy_alpha is"):
        ProxyBackend("http://127.0.0.1:1", default_alpha=alpha)


def test_an_unknown_variable_is_named_with_those_that_are_there(backend):
    state = two_strengths.run(question="Count", backend=backend)
    state.sync()
    with pytest.raises(KeyError, match="no variable 'thought'; it has: 'strong', 'base', 'default'"):
        state["thought"]


def test_a_program_that_failed_says_why_where_its_variable_is_read(backend):
    @sgl.function
    def too_long(s):
        s += "word " * 5000
        s += proxy_gen("answer", alpha=1.0, max_tokens=4)

    with pytest.raises(KeyError, match="'answer' was not generated, because the program failed: .*longer than"):
        too_long.run(backend=backend)["answer"]


def test_so_does_one_that_failed_before_it_generated_anything(backend):
    @sgl.function
    def unseen(s):
        s += sgl.user(sgl.image("no-such-picture.png") + "What is it?")
        s += sgl.assistant(proxy_gen("answer", alpha=1.0, max_tokens=4))

    with pytest.raises(KeyError, match="'answer' was not generated, because the program failed: .*no-such-picture"):
        unseen.run(backend=backend)["answer"]


def test_a_program_that_nobody_holds_is_gone_without_the_garbage_collector(backend):
    """Ended by the collector it may end inside of a thread's start, whose lock it waits for: forever."""

    @sgl.function
    def program(s):
        s += "Say" + proxy_gen("word", alpha=0.5, max_tokens=2) + " or " + proxy_gen("one", choices=[" a", " b"])

    gc.collect()
    gc.disable()
    try:
        state = program.run(backend=backend)
        assert state["word"] and state["one"]
        executor = weakref.ref(state.stream_executor)
        state.stream_executor.worker.join()
        del state
        assert executor() is None
    finally:
        gc.enable()


def test_an_unreachable_server_is_a_sentence():
    with pytest.raises(ConnectionError, match="no server answers at http://127.0.0.1:.* start one with"):
        ProxyBackend(f"http://127.0.0.1:{reserve_port()}")


def test_another_backend_never_ignores_a_strength(guided):
    state = two_strengths.run(question="Count", backend=RuntimeEndpoint(guided.url))
    state.sync()
    assert "needs sgl_proxythinker.ProxyBackend" in str(state.error())
    with pytest.raises(RuntimeError, match="needs sgl_proxythinker.ProxyBackend"):
        proxy_gen("answer", alpha=1.0, choices=["a", "b"]).choices_method(choices=["a", "b"])


@pytest.mark.parametrize(
    "choices, options, sentence",
    [
        ([" a", " b"], {"temperature": 1.0}, "choices are scored, not sampled"),
        ([" a", ""], {}, "choice '' adds no token"),
    ],
)
def test_choices_that_can_not_be_scored_are_refused(backend, choices, options, sentence):
    @sgl.function
    def choose(s):
        s += "The answer is"
        s += proxy_gen("choice", alpha=1.0, choices=choices, **options)

    state = choose.run(backend=backend)
    state.sync()
    assert sentence in str(state.error())
