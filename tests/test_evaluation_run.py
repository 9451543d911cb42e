"""`python -m benchmarks.paper`, as a researcher runs it: in its own environment, against a real guided server."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from documented import as_it_stands, block
from published_sets import write_published_sets
from relay import relaying
from servers import clean_environment
from sgl_proxythinker.evaluation.presets import SHIPPED
from sgl_proxythinker.evaluation.records import Outcome
from sgl_proxythinker.evaluation.run_folder import RunFolder
from sgl_proxythinker.evaluation.summary import summarize
from sgl_proxythinker.programs.server_process import reserve_port
from sgl_proxythinker.tiny_family.grading import is_right
from sgl_proxythinker.tiny_family.problems import problem
from sgl_proxythinker.tiny_family.wordings import TEST

pytestmark = pytest.mark.xdist_group("family")

ROOT = Path(__file__).parent.parent
COUNT = 48  # problems of the tiny family's held-out set
WITHIN_S = 400
IN_CACHE = {"XDG_CACHE_HOME": str(ROOT / ".venv-eval")}
TINY = ("--benchmarks", "tiny_family", "--preset", "tiny-family", "--limit", str(COUNT))


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The evaluation's own, made as by the first one that a person runs; it is kept beside the checkout's other one."""
    done = subprocess.run(
        [sys.executable, "-m", "sgl_proxythinker", "eval", "--report", "--out", str(tmp_path_factory.mktemp("none"))],
        cwd=ROOT, env=clean_environment(IN_CACHE), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.endswith("nothing was asked yet.\n"), done.stderr[-3000:]
    [python] = ROOT.glob(".venv-eval/sgl-proxythinker/*/bin/python")
    return python


@pytest.fixture(scope="module")
def paper(python):
    """Run the command to its end: its exit code, and what it said."""

    def run(url, out, *flags):
        done = subprocess.run(
            started(python, url, out, *flags), cwd=ROOT, env=clean_environment(), capture_output=True, text=True,
            timeout=WITHIN_S,
        )  # fmt: skip
        return done.returncode, done.stdout[-3000:] + done.stderr[-3000:]

    return run


def started(python, url, out, *flags):
    return [str(python), "-m", "benchmarks.paper", "--url", url, "--out", str(out), *flags]


@pytest.fixture(scope="module")
def straight(python, family, tmp_path_factory):
    """A run from its beginning to its end, as the page shows it, of fewer questions."""
    text, folder = block("docs/evaluation.md", "proxythinker eval"), tmp_path_factory.mktemp("straight")
    fewer = text.replace("--limit 100", f"--limit {COUNT}")
    assert fewer != text
    as_it_stands(fewer, folder, family, IN_CACHE)
    return folder / "runs" / "first"


def grades(out):
    return {asked: (answer.text, answer.last, answer.published) for asked, answer in RunFolder(out).answers().items()}


def table(out):
    """The report's tables, without when it was made and how long answers took."""
    summaries = summarize(RunFolder(out).answers().values(), RunFolder(out).questions())
    return [(each.benchmark, each.setting, each.accuracy, dict(each.outcomes), each.tokens) for each in summaries]


def test_it_grades_as_the_tiny_familys_own_evaluation(straight, family):
    """The same problems, asked in the same way: exact match with the last <answer>, cut-offs not right."""
    answers = RunFolder(straight).answers()
    assert len(answers) == 2 * COUNT
    for asked, answer in answers.items():
        truth = problem(TEST, int(asked.question)).answer
        assert answer.last.right == (is_right(answer.text, truth) and answer.outcome != Outcome.CUT_OFF), answer
    found = {each.setting: each for each in summarize(answers.values(), RunFolder(straight).questions())}
    assert found["alpha-0.5"].accuracy["last"].value > found["alpha-0"].accuracy["last"].value


def test_every_answer_says_how_it_was_made(straight):
    for asked, answer in RunFolder(straight).answers().items():
        assert answer.made_by["proxy_alpha"] == float(asked.setting.removeprefix("alpha-"))


def test_an_answer_that_was_made_in_another_way_ends_the_run(python):
    """Kills: the base's answers, or another strength's, kept under the name of a setting."""
    program = """
from types import SimpleNamespace
from sgl_proxythinker.evaluation.asking.task import _check_strength
from sgl_proxythinker.evaluation.errors import EvaluationError
wanted = {"proxy_alpha": 0.5, "proxy_amateur_alpha": 0.5}
part = SimpleNamespace(
    made_by=wanted, setting=SimpleNamespace(name="alpha-0.5"), server=SimpleNamespace(url="http://there")
)
_check_strength(SimpleNamespace(made_by=wanted | {"id": "1", "proxy_trace": {}}), part)
for lie in ({}, {"proxy_alpha": 0.0, "proxy_amateur_alpha": 0.0}, wanted | {"proxy_clip": 2.0}):
    try:
        _check_strength(SimpleNamespace(made_by=lie), part)
    except EvaluationError as problem:
        assert "alpha-0.5" in str(problem)
    else:
        raise SystemExit(f"{lie} was kept")
"""
    done = subprocess.run(
        [str(python), "-c", program], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_manifest_says_what_was_run(straight, family):
    manifest = RunFolder(straight).manifest()
    (session,) = manifest["sessions"]
    assert session["server"]["proxy"]["expert"].endswith("tiny_family/expert") and session["commit"]
    assert {"inspect-ai", "datasets", "openai"} <= set(session["client"])
    assert manifest["run"]["preset"]["name"] == "tiny-family" and manifest["run"]["preset"]["max_tokens"] == 192
    assert manifest["settings"] == {"alpha-0": {"proxy_alpha": 0.0}, "alpha-0.5": {"proxy_alpha": 0.5}}
    assert manifest["data"]["tiny_family"]["questions"] == COUNT and manifest["data"]["tiny_family"]["fingerprint"]


def test_it_writes_a_report(straight):
    assert (straight / "report.html").stat().st_size > 10_000 and list(straight.glob("*.png"))
    shares = [each.accuracy["last"].value for each in summarize(
        RunFolder(straight).answers().values(), RunFolder(straight).questions()
    )]  # fmt: skip
    told = (straight / "report.md").read_text()
    assert all(f"{100 * share:.1f}" in told for share in shares)


def test_a_run_that_is_finished_asks_nothing(straight, paper, family):
    before = (straight / "answers.jsonl").read_bytes()
    code, said = paper(family.url, straight, *TINY, "--alphas", "0,0.5")
    assert code == 0, said
    assert (straight / "answers.jsonl").read_bytes() == before


def test_a_report_needs_no_server(straight, python):
    (straight / "report.md").unlink()
    command = [str(python), "-m", "benchmarks.paper", "--report", "--out", str(straight)]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "alpha-0.5" in (straight / "report.md").read_text()


def test_without_a_server_it_says_so(paper, tmp_path):
    code, said = paper("http://127.0.0.1:9", tmp_path, *TINY)
    assert code == 1 and "does not say which model it serves" in said and "Traceback" not in said


def test_it_speaks_to_nobody_but_the_server(python, family, tmp_path):
    """All that would go elsewhere is sent to a door at which somebody counts."""
    folders, came = write_published_sets(tmp_path / "sets"), []
    with socket.create_server(("127.0.0.1", 0)) as door:

        def count():
            with contextlib.suppress(OSError):
                while True:
                    came.append(door.accept()[0].recv(200))

        threading.Thread(target=count, daemon=True).start()
        elsewhere = dict.fromkeys(
            ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), f"http://127.0.0.1:{door.getsockname()[1]}"
        )
        elsewhere |= {name.lower(): value for name, value in elsewhere.items()}
        data = ("--preset", "tiny-family", "--benchmarks", "mathvista,r1_onevision", *(
            flag for name in ("mathvista", "r1_onevision") for flag in ("--data", f"{name}={folders[name]}")
        ))  # fmt: skip
        done = subprocess.run(
            started(python, family.url, tmp_path / "out", *data, "--limit", "2", "--alphas", "0.5"), cwd=ROOT,
            env=clean_environment(elsewhere | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}),
            capture_output=True, text=True, timeout=WITHIN_S,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not came


@contextlib.contextmanager
def endpoint(info, meta):
    """A server that answers 5 to everything: its URL, and what it was asked.

    Args:
        info: its `/server_info`; None: it has none.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            told = {"data": [{"id": "m"}]} if self.path == "/v1/models" else info
            self._answer(404 if told is None else 200, told)

        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "5"}}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            kind = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
            self._answer(200, kind | {"choices": [choice | {"meta_info": meta}]})

        def _answer(self, code, told):
            data = json.dumps(told).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()


SGLANG = {"model_path": "m", "version": "0.5.17"}
GUIDED = SGLANG | {
    "proxy": {"expert": "e", "amateur": "a", "experts": {}, "alpha": 0.5, "law": None, "clip": None, "plausible": None}
}
HALF = {"proxy_alpha": 0.5, "proxy_amateur_alpha": 0.5}
WHAT = {"model", "messages", "max_tokens", "max_completion_tokens", "custom_params", "seed"}
NOT_THE_MODELS = {"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0}


@pytest.mark.parametrize(
    "info, meta, flags, sent",
    [
        (GUIDED, HALF, ("--plain", "p", "--alphas", "0.5"), NOT_THE_MODELS | {"top_p": 1.0, "temperature": 0.0}),
        (SGLANG, None, ("--plain", "p"), NOT_THE_MODELS | {"top_p": 1.0, "temperature": 0.0}),
        (SGLANG, None, ("--plain", "p", "--repeats", "2"), NOT_THE_MODELS | {"top_p": 0.95, "temperature": 1.0}),
        (None, None, ("--plain", "p"), {"temperature": 0.0}),
        ({"vllm_config": {}}, None, ("--plain", "p"), {"temperature": 0.0}),
    ],
    ids=["guided, and as it is", "SGLang", "SGLang, drawn", "another server", "vLLM"],
)
def test_nothing_of_how_answers_are_drawn_is_left_to_the_models_generation_config(
    info, meta, flags, sent, paper, tmp_path
):
    """Kills: Qwen2.5-VL's repetition penalty of 1.05 in every answer; a field that another server would refuse."""
    with endpoint(info, meta) as (url, asked):
        few = ("--benchmarks", "tiny_family", "--preset", "tiny-family", "--limit", "2")
        code, said = paper(url, tmp_path, *few, *flags)
    assert code == 0, said
    for body in asked:
        how = {name: body[name] for name in body.keys() - WHAT}
        assert how == sent | ({"return_meta_info": True} if meta else {})
    assert asked
    sampling = RunFolder(tmp_path).manifest()["run"]["sampling"]
    told = NOT_THE_MODELS if "top_k" in sent else dict.fromkeys(NOT_THE_MODELS)
    assert {name: sampling.get(name) for name in NOT_THE_MODELS} == told


def test_other_defaults_of_a_guided_server_are_another_plain_setting(paper, tmp_path):
    """Kills: answers under one strength and under another in one row."""
    flags = ("--benchmarks", "tiny_family", "--preset", "tiny-family", "--limit", "2", "--plain", "as-it-is")
    with endpoint(GUIDED, HALF) as (url, _):
        assert paper(url, tmp_path, *flags)[0] == 0
    clipped = GUIDED | {"proxy": GUIDED["proxy"] | {"clip": 2.0}}
    with endpoint(clipped, HALF | {"proxy_clip": 2.0}) as (url, asked):
        code, said = paper(url, tmp_path, *flags)
    assert code == 1 and "another setting as-it-is: its proxy_clip was left out and is 2.0" in said and not asked


def written(out):
    """Lines of the run's answers."""
    file = out / "answers.jsonl"
    return file.read_bytes().splitlines() if file.exists() else []


def test_a_run_that_is_killed_ended_and_left_by_its_server_gives_the_same_table(straight, python, family, tmp_path):
    flags = (*TINY, "--alphas", "0,0.5", "--connections", "8")
    with relaying(family.url, reserve_port()) as relay:
        port = relay.port
        ends = (
            lambda process: process.kill(),
            lambda process: process.send_signal(signal.SIGINT),
            lambda process: relay.shut(),
        )
        for end in ends:
            enough, deadline = len(written(tmp_path)) + 6, time.time() + WITHIN_S
            process = subprocess.Popen(
                started(python, relay.url, tmp_path, *flags), cwd=ROOT, env=clean_environment(),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                # Whoever runs these tests in the background has told them to ignore it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
            while len(written(tmp_path)) < enough:
                assert process.poll() is None and time.time() < deadline, process.communicate()[0]
                time.sleep(0.05)
            end(process)
            said, _ = process.communicate(timeout=WITHIN_S)
            assert process.returncode in (-signal.SIGKILL, 1, 3), said
        assert "answers no more" in said
    with relaying(family.url, port) as relay:
        done = subprocess.run(
            started(python, relay.url, tmp_path, *flags), cwd=ROOT, env=clean_environment(), capture_output=True,
            text=True, timeout=WITHIN_S,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert grades(tmp_path) == grades(straight)
    assert sorted(table(tmp_path)) == sorted(table(straight))
    kept = [line for line in written(tmp_path) if line.endswith(b"}") and b'"outcome":"answered"' in line]
    assert len(kept) == len(set(kept)) == 2 * COUNT, "an answer was asked twice"


def test_all_benchmarks_are_asked_and_failures_are_counted_apart(paper, family, tmp_path):
    """Small sets in the published formats. Kills: a failed request that is graded as a wrong answer."""
    folders = write_published_sets(tmp_path / "sets")
    names = "mathvista,mathverse,mathvision,mmmu_pro,r1_onevision"
    data = [flag for name in names.split(",") for flag in ("--data", f"{name}={folders[name]}")]
    code, said = paper(
        family.url, tmp_path / "out", "--benchmarks", names, *data, "--preset", "tiny-family", "--alphas", "0.5"
    )
    folder = RunFolder(tmp_path / "out")
    answers = folder.answers().values()
    failed = [answer for answer in answers if answer.outcome == Outcome.FAILED]
    assert code == (3 if failed else 0), said
    assert {answer.benchmark for answer in answers} == set(names.split(","))
    assert len(answers) == len(folder.questions())
    for answer in failed:
        assert answer.error and not answer.text and answer.error[:80] in said
    for summary in summarize(answers, folder.questions()):
        assert sum(summary.outcomes.values()) == summary.questions + summary.failed
    if failed:
        assert f"{len(failed):,} answers are missing" in said


@pytest.mark.rare  # tests/test_evaluation_summary.py has the numbers
def test_several_answers_give_pass_at_k(paper, family, tmp_path):
    flags = ("--benchmarks", "tiny_family", "--preset", "tiny-family", "--limit", "10", "--repeats", "3")
    code, said = paper(family.url, tmp_path, *flags, "--alphas", "0.5")
    assert code == 0, said
    (summary,) = summarize(RunFolder(tmp_path).answers().values(), RunFolder(tmp_path).questions())
    shares = [summary.pass_at["last"][k].value for k in (1, 2, 3)]
    assert shares == sorted(shares) and shares[0] == pytest.approx(summary.accuracy["last"].value)
    texts = {(asked.question, answer.text) for asked, answer in RunFolder(tmp_path).answers().items()}
    assert len(texts) > 10, "repeats draw anew"


def test_laws_and_experts_are_settings_and_strengths_can_be_added_later(paper, family, straight, tmp_path):
    (tmp_path / "settings.yaml").write_text(
        "entropy-0.3: {proxy_alpha: 0.5, proxy_law: {kind: entropy, above: 0.3}}\n"
        "both: {proxy_experts: {expert: 0.25, specialist: 0.25}}\n"
    )
    flags = ("--settings", str(tmp_path / "settings.yaml"), "--without-amateur", "--alphas", "0.5", "--plain", "plain")
    before = len(RunFolder(straight).answers())
    code, said = paper(family.url, straight, *TINY, *flags)
    assert code == 0, said
    answers = RunFolder(straight).answers()
    assert len(answers) == before + 4 * COUNT
    made_by = {asked.setting: answer.made_by for asked, answer in answers.items()}
    assert made_by["both"]["proxy_experts"] == {"expert": 0.25, "specialist": 0.25}
    assert made_by["plain"]["proxy_alpha"] == made_by["plain"]["proxy_amateur_alpha"], "the server's defaults"
    assert made_by["entropy-0.3"]["proxy_law"] and made_by["no-amateur-0.5"]["proxy_amateur_alpha"] == 0.0


def rare(flags, said):
    return pytest.param(flags, said, marks=pytest.mark.rare)


@pytest.mark.parametrize(
    "flags, said",
    [
        (("--presets", "shorter.yaml"), "began with another preset: its max_tokens was 192 and is 100"),
        (("--preset", "boxed"), "asks for answers of 4,096 tokens"),
        rare(("--preset", "tiny-family", "--temperature", "0.7"), "began with another sampling"),
        (("--benchmarks", "mathvista"), "AI4Math/MathVista (testmini) can't be read"),
        rare(("--baseline", "alpha-7"), "has no answer under the baseline alpha-7"),
    ],
)
def test_what_can_not_be_is_refused_and_nothing_is_lost(flags, said, paper, family, straight, tmp_path):
    before = (straight / "answers.jsonl").read_bytes()
    (tmp_path / "shorter.yaml").write_text(SHIPPED.read_text().replace("max_tokens: 192", "max_tokens: 100"))
    flags = [str(tmp_path / flag) if flag.endswith(".yaml") else flag for flag in flags]
    code, told = paper(family.url, straight, *TINY, "--alphas", "0.5", *flags)
    assert code == 1 and said in told, told
    assert "Traceback" not in told
    assert (straight / "answers.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "text, said",
    [
        ("mine: {proxy_expert: nobody}", "proxy_expert is 'nobody', and this server's experts are expert, specialist"),
    ],
)
def test_a_setting_that_the_server_would_refuse_is_refused_at_once(text, said, paper, family, tmp_path):
    (tmp_path / "settings.yaml").write_text(text)
    flags = ("--alphas", "0.5", "--settings", str(tmp_path / "settings.yaml"))
    code, told = paper(family.url, tmp_path / "out", *TINY, *flags)
    assert code == 1 and said in told, told
    assert not (tmp_path / "out" / "answers.jsonl").exists()
