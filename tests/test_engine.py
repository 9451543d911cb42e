"""The offline engine, with equal proxies: at any alpha it is plain SGLang. A further expert steers it."""

import inspect
from types import SimpleNamespace

import pytest
from test_served_laws import IN_FLOAT32, SCHEDULE, assert_all_differ, assert_law_is_the_oracles, body

import sgl_proxythinker
from cases import assert_same_tokens, logprob_tolerance
from documented import block
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.reference_hf import Reference

pytestmark = pytest.mark.xdist_group("engine")

PLACE = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.fixture
def triple(equal_triple):
    return equal_triple


def params(alpha, **options):
    return {"temperature": 0, "max_new_tokens": 12, "custom_params": {"proxy_alpha": alpha}, **options}


def test_equal_proxies_give_the_bases_tokens_at_any_alpha(engine, triple):
    base_alone = Reference(triple.base, triple.base, triple.base)
    for images in ([], [random_picture(1)], [random_picture(1), random_picture(2, 112, 56)]):
        prompt = PLACE * len(images) + "What is it?"
        wanted = base_alone.generate(prompt, images, alpha=0.0, max_new_tokens=12)
        for alpha in (-10, -1.0, 0, 0.5, 10):
            answer = engine.generate(prompt, params(alpha), image_data=images or None)
            # The proxies cancel exactly: the rounding that is left is the base's.
            assert_same_tokens(answer["output_ids"], wanted, base_alone, 0.0, images=images)
            assert answer["meta_info"]["proxy_alpha"] == alpha


def test_the_default_alpha_is_the_configs(engine):
    answer = engine.generate("Hi", {"max_new_tokens": 2})
    assert answer["meta_info"]["proxy_alpha"] == answer["meta_info"]["proxy_amateur_alpha"] == 0.25


@IN_FLOAT32
def test_its_own_law_is_the_oracles_and_gives_way_to_a_requests(engine, triple, experts, own_law):
    """Kills: a law, or a cut, of `ProxyConfig` that no request gets, or every one."""
    reference = Reference(triple.base, triple.expert, triple.amateur, experts={"math": experts["math"]})
    own = {f"proxy_{name}": value for name, value in own_law.items()} | {"proxy_alpha": 0.25}
    cuts = {name: own[name] for name in ("proxy_clip", "proxy_plausible")}
    math = {"proxy_expert": "math"}
    both = {"proxy_experts": {"expert": 0.5, "math": 1.6}}
    # What a request says, and what that means with all of it said.
    wishes = [
        (math, math | own),
        (math | {"proxy_alpha": 0.9}, math | {"proxy_alpha": 0.9} | cuts),
        (math | {"proxy_law": SCHEDULE}, math | {"proxy_law": SCHEDULE} | cuts),
        (math | {"proxy_clip": 9.0, "proxy_plausible": 0}, math | own | {"proxy_clip": 9.0, "proxy_plausible": 0}),
        (both, both | cuts),
    ]
    asked = [body("Tell", said)["sampling_params"] for said, _ in wishes]
    answers = engine.generate(["Tell"] * len(wishes), asked, return_logprob=True)
    for answer, (_, meant) in zip(answers, wishes, strict=True):
        assert_law_is_the_oracles(answer, reference, "Tell", meant)
    assert_all_differ(answers)
    told = engine.get_server_info()["proxy"]
    assert {name: told[name] for name in own_law} == own_law
    meta = engine.generate("Tell", {"max_new_tokens": 1})["meta_info"]
    assert {name: meta[name] for name in own} == own


def test_the_pages_program_runs(engine, triple, monkeypatch, capsys):
    """On the engine that is here in place of the one that it starts, whose arguments are seen to be an engine's."""
    constructor = inspect.signature(sgl_proxythinker.Engine)

    def start(**arguments):
        assert constructor.bind(**arguments).arguments["proxy"].alpha == 0.5
        return SimpleNamespace(generate=engine.generate, shutdown=lambda: None)

    monkeypatch.setattr(sgl_proxythinker, "Engine", start)
    text = block("docs/programs.md", "from sgl_proxythinker import Engine")
    models = {"BASE": str(triple.base), "E": str(triple.expert), "A": str(triple.amateur)}
    exec(compile(text, "docs/programs.md", "exec"), {"__name__": "__main__", **models})
    wanted = engine.generate("Hi", {"max_new_tokens": 32, "custom_params": {"proxy_alpha": 1.0}})
    assert capsys.readouterr().out.strip() and wanted["text"]


def test_it_runs_on_one_host(engine, triple):
    """Another node's engine would block for ever in its constructor."""
    from sgl_proxythinker import Engine, ProxyConfig

    proxy = ProxyConfig(expert_path=str(triple.expert), amateur_path=str(triple.amateur))
    with pytest.raises(LaunchError, match="nnodes=2: the engine runs on one host"):
        Engine(str(triple.base), proxy, nnodes=2, node_rank=1, dist_init_addr="10.0.0.1:29500")


def test_async_generate_is_the_same_engine(engine):
    async def ask():
        return await engine.async_generate("Hi", params(1.0))

    answer = engine.loop.run_until_complete(ask())
    assert answer["output_ids"] == engine.generate("Hi", params(1.0))["output_ids"]


def test_equal_proxies_leave_no_trace(engine):
    asked = params(4.0, custom_params={"proxy_alpha": 4.0, "proxy_trace": True})
    both = engine.generate(["Hi", "Go"], [asked, params(4.0)])
    assert "proxy_trace" not in both[1]["meta_info"]
    trace = both[0]["meta_info"]["proxy_trace"]
    assert trace["token_id"] == trace["base_top1_id"] == both[0]["output_ids"]
    assert trace["expert_logprob"] == trace["amateur_logprob"]
    assert trace["fused_logprob"] == trace["base_logprob"]
    assert trace["js_nats"] == pytest.approx([0] * 12, abs=1e-6) and not any(trace["flipped"])
    with pytest.raises(ValueError, match="proxy_trace is 1"):
        engine.generate("Hi", params(1.0, custom_params={"proxy_trace": 1}))


def test_a_bad_alpha_is_a_value_error(engine):
    with pytest.raises(ValueError, match="proxy_alpha is 'x'"):
        engine.generate("Hi", params("x"))
    assert engine.generate("Hi", params(0.5))["output_ids"]


def test_every_method_of_the_engine_is_allowed_or_refused(engine):
    """A new method of SGLang's engine must be looked at."""
    from sgl_proxythinker.frontend.engine import REFUSED, SGLangEngine

    allowed = {
        "async_generate", "flush_cache", "freeze_gc", "generate", "get_all_child_pids", "get_server_info",
        "init_tokenizer_manager_func", "run_detokenizer_process_func", "run_scheduler_process_func",
        "server_args_class", "shutdown", "start_profile", "stop_profile",
    }  # fmt: skip
    methods = {name for name in dir(SGLangEngine) if not name.startswith("_") and callable(getattr(SGLangEngine, name))}
    assert methods == allowed | REFUSED.keys()


def test_what_knows_one_model_is_refused(engine):
    from sgl_proxythinker.frontend.engine import REFUSED

    for name in REFUSED:
        with pytest.raises(ValueError, match=f"Engine.{name} is not available with guidance"):
            getattr(engine, name)


def test_the_engine_says_what_it_runs(engine, triple):
    assert engine.get_server_info()["proxy"]["amateur"] == str(triple.amateur)


# Programs


@pytest.fixture
def backend(engine):
    from sgl_proxythinker import EngineBackend

    with EngineBackend(engine) as backend:
        yield backend


def test_programs_run_on_the_engine(engine, triple):
    """What they generate is what the engine gives by itself, with pictures in turns, choices and streams."""
    import sglang as sgl

    from sgl_proxythinker import EngineBackend, proxy_gen

    @sgl.function
    def program(s, first, second):
        s += sgl.user(sgl.image(first) + "What is it?")
        s += sgl.assistant(proxy_gen("thought", alpha=1.0, trace=True, max_tokens=12, temperature=0))
        s += sgl.user(sgl.image(second) + "And now?")
        s += sgl.assistant(sgl.gen("plain", max_tokens=8, temperature=0))

    pictures = random_picture(1), random_picture(2, 112, 56)
    with EngineBackend(engine, default_alpha=0) as backend:
        state = program.run(*pictures, backend=backend)
        assert state.error() is None
        strengths = [state.get_meta_info(name)["proxy_alpha"] for name in ("thought", "plain")]
        trace = state.get_meta_info("thought")["proxy_trace"]
        assert engine.tokenizer_manager.tokenizer.decode(trace["token_id"]) == state["thought"]
        assert "proxy_trace" not in state.get_meta_info("plain")
        streamed = program.run(*pictures, backend=backend, stream=True)
        assert "".join(streamed.text_iter("thought")) == state["thought"]
        assert streamed.get_meta_info("thought")["proxy_trace"]["token_id"] == trace["token_id"]
        text, thought, plain = state.text(), state["thought"], state["plain"]
    assert strengths == [1.0, 0.0]
    start = text[: text.index(thought)]
    assert engine.generate(start, params(1.0), image_data=[pictures[0]])["text"] == thought
    before = text[: text.rindex(plain)]
    assert engine.generate(before, params(0, max_new_tokens=8), image_data=list(pictures))["text"] == plain


def test_choices_are_scored_on_the_engine(backend, triple):
    import sglang as sgl

    from sgl_proxythinker import proxy_gen

    @sgl.function
    def choose(s, alpha):
        s += sgl.image(random_picture(3))
        s += "The answer is"
        s += proxy_gen("choice", alpha=alpha, choices=[" right", " 42"])

    alphas = (0, 2.0)
    scores = [choose.run(alpha, backend=backend).get_meta_info("choice")["input_token_logprobs"] for alpha in alphas]
    base = Reference(triple.base, triple.base, triple.base)
    prompt = PLACE + "The answer is"
    ids = base.tokenizer(prompt)["input_ids"]
    tokens = base.tokenizer(prompt + " right")["input_ids"][len(ids) :]
    rows = base.fused_logits(prompt, [random_picture(3)], tokens[:-1], alpha=0.0).log_softmax(-1)
    wanted = [rows[at, token].item() for at, token in enumerate(tokens)]
    for alpha, scored in zip(alphas, scores, strict=True):  # equal proxies: the base's, at any alpha
        assert [logprob for logprob, *_ in scored[0]] == pytest.approx(wanted, abs=logprob_tolerance(alpha))
