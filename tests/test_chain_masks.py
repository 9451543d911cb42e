"""Grammars along a chain: what each position allows, and that trying leaves the request's own grammar where it was."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import xgrammar
from transformers import AutoTokenizer

DEAD_LATER = 'root ::= "a" "b" x\nx ::= x'


@pytest.fixture(scope="module")
def backend(sglang, triple):
    from sglang.srt.constrained.llguidance_backend import GuidanceBackend

    tokenizer = AutoTokenizer.from_pretrained(triple.base)
    return GuidanceBackend(tokenizer), tokenizer


PADDED = 64  # columns of a head past the tokenizer's ids


def rows_of_the_head(backend) -> int:
    """Grammars are compiled for the base's head, which is wider than what the tokenizer knows."""
    return len(backend[1]) + PADDED


@pytest.fixture(scope="module", params=["llguidance", "xgrammar"])
def either(request, backend):
    """`backend` by either library. On a CPU xgrammar reads tokens and fills masks; its own library applies them."""
    if request.param == "llguidance":
        yield backend
        return
    from sglang.srt.constrained import xgrammar_backend

    tokenizer = backend[1]
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():  # pinned memory needs a driver
            patch.setattr(
                xgrammar_backend,
                "_allocate_token_bitmask",
                lambda vocab_size, batch_size: torch.full((batch_size, -(-vocab_size // 32)), -1, dtype=torch.int32),
            )
            patch.setattr(xgrammar_backend.XGrammarGrammar, "apply_vocab_mask", apply_on_a_cpu)
        made = xgrammar_backend.XGrammarGrammarBackend(tokenizer, rows_of_the_head(backend), [tokenizer.eos_token_id])
        yield made, tokenizer


def apply_on_a_cpu(grammar, logits, vocab_mask):
    assert vocab_mask.shape[1] <= -(-logits.shape[1] // 32), "SGLang's kernel takes no wider mask"
    xgrammar.apply_token_bitmask_inplace(logits, vocab_mask)


def req(backend, kind: str, source: str, written: str):
    """A request with a grammar that has read a text."""
    grammar = getattr(backend[0], f"dispatch_{kind}")(source)
    for token in ids(backend, written):
        grammar.accept_token(token)
    return SimpleNamespace(grammar=grammar)


def ids(backend, text: str) -> list[int]:
    tokenizer = backend[1]
    return [tokenizer.eos_token_id if letter == "$" else tokenizer(letter)["input_ids"][0] for letter in text]


def allowed(backend, mask: torch.Tensor, row: int) -> str:
    """Those of some letters, and of the end, that a row of a mask allows."""
    return "".join(
        letter for letter in "abc$" if int(mask[row, (token := ids(backend, letter)[0]) // 32]) >> (token % 32) & 1
    )


def masks(backend, reqs, chains: list[str]) -> list[list[str]]:
    from sgl_proxythinker.speculation.chain_masks import chain_mask

    tokens = torch.tensor([ids(backend, chain) for chain in chains])
    mask = chain_mask(reqs, tokens, rows_of_the_head(backend)).vocab_mask
    each = tokens.shape[1]
    return [[allowed(backend, mask, place * each + offset) for offset in range(each)] for place in range(len(reqs))]


OPEN = "abc$"


@pytest.mark.parametrize(
    ("written", "chain", "wanted"),
    [
        ("a", "abbc", ["b", "bc", "bc", "$"]),
        ("a", "abcb", ["b", "bc", "$", OPEN]),  # a draft that isn't allowed: what follows counts for nothing
        ("a", "acbb", ["b", OPEN, OPEN, OPEN]),
        ("ab", "bc$a", ["bc", "$", OPEN, OPEN]),  # after the end
    ],
)
def test_each_position_allows_what_the_grammar_does_after_the_drafts_before_it(either, written, chain, wanted):
    """Kills: a copy that begins anew, and one that moves the request's own grammar."""
    one = req(either, "regex", "ab+c", written)
    free = SimpleNamespace(grammar=None)
    assert masks(either, [free, one], [chain, chain]) == [[OPEN] * 4, wanted]
    assert masks(either, [one], ["".join(chain)]) == [wanted], "trying has moved nothing"


def test_a_grammar_that_drafts_lead_into_an_error_goes_on_where_it_was(backend):
    """Kills: an error of a draft that ends the server, or the request whose token it never was."""
    one = req(backend, "ebnf", DEAD_LATER, "a")
    for chain in ("abab", "ab$b", "aabb"):
        told = masks(backend, [one], [chain])
        assert told[0][0] == "b"
    one.grammar.accept_token(ids(backend, "b")[0])


def test_drafts_keep_to_the_grammar(either):
    """Kills: a mask as wide as the drafter's row, which xgrammar doesn't fill, or as the head, which isn't applied."""
    from sgl_proxythinker.speculation.chain_masks import DraftMasks

    one, dead = req(either, "regex", "ab+c", "a"), req(either, "ebnf", DEAD_LATER, "a")
    drafts = DraftMasks([one, SimpleNamespace(grammar=None), dead], rows_of_the_head(either))
    logits = torch.zeros(3, len(either[1]))
    logits[:, ids(either, "c")[0]] = 2.0
    logits[:, ids(either, "b")[0]] = 1.0
    written = ["", "", ""]
    for _ in range(4):
        best = drafts.masked(logits).argmax(-1)
        drafts.read(best)
        written = [text + either[1].decode([token]) for text, token in zip(written, best.tolist(), strict=True)]
    assert written[0][:2] == "bc" and written[1] == "cccc" and written[2][0] == "b"
    assert logits[0, ids(either, "c")[0]] == 2.0, "the drafter's row is fused as it came"
    assert masks(either, [one, dead], ["ab", "ab"])[0] == ["b", "bc"], "trying has moved nothing"


def test_a_grammar_behind_a_reasoning_models_thoughts_is_read_where_it_stands(either):
    """Kills: a copy that begins anew inside of what SGLang puts around a grammar (`--reasoning-parser`)."""
    from sglang.srt.constrained.reasoner_grammar_backend import ReasonerGrammarObject

    around = ReasonerGrammarObject(req(either, "regex", "ab+c", "ab").grammar, ids(either, "$"))
    around.maybe_init_reasoning(False)  # the thoughts are over
    assert masks(either, [SimpleNamespace(grammar=around)], ["bc$a"]) == [["bc", "$", OPEN, OPEN]]
    assert masks(either, [SimpleNamespace(grammar=around)], ["bbbb"]) == [["bc"] * 4], "trying has moved nothing"
