"""Three models sharded over two ranks give the tokens of the oracle, which knows one."""

import pytest
import yaml

from cases import ask_all, assert_agrees, mixed_cases, oracle_answer
from programs.random_triple import make_triple
from programs.reference_hf import Reference
from servers import COMMON, command, serving
from trace_oracle import assert_is_the_oracles

pytestmark = pytest.mark.xdist_group("ranks")


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    """The proxies' heads are wider than the base's, and each rank holds half of each."""
    return make_triple(tmp_path_factory.mktemp("ranks"), seed=5, head_rows={"base": 384, "expert": 448, "amateur": 512})


def write_config(triple, folder):
    """The proxies by file, with options of their own."""
    file = folder / "proxies.yaml"
    own = {"load_format": "safetensors", "revision": "main"}
    file.write_text(
        yaml.safe_dump({"expert_path": str(triple.expert), "amateur_path": str(triple.amateur), "expert": own})
    )
    return file


def test_two_ranks_give_the_oracles_tokens(triple, tmp_path):
    reference = Reference(triple.base, triple.expert, triple.amateur)
    # Every fourth case: text and images, each alpha; two gloo ranks are about ten times slower than one.
    cases = mixed_cases()[::4]
    arguments = command(
        triple.base, None, *COMMON, "--tp-size", "2", "--proxy-config", str(write_config(triple, tmp_path))
    )
    with serving(arguments, tmp_path / "log") as server:
        for _ in ("cold", "warm"):
            for answer, case in zip(ask_all(server, cases), cases, strict=True):
                assert_agrees(answer, oracle_answer(reference, case), case)
        extra = {"custom_params": {"proxy_alpha": 1.5, "proxy_trace": True}}
        traced = server.chat(cases[-1].messages(), None, extra_body=extra)["choices"][0]["meta_info"]["proxy_trace"]
        assert len(traced["token_id"]) == 16, "one rank of two sends it"
        assert_is_the_oracles(traced, reference, cases[-1].messages(), list(cases[-1].images), 1.5)
        assert server.get("/server_info").json()["proxy"]["expert"] == str(triple.expert)
