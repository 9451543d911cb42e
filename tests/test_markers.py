"""Whether a text holds its request's marker: what a search of all of it says, at every token and in every order.

Each law is asked of the specification in torch and of the kernel, which runs in triton's interpreter without a GPU, in
a process of its own (as in test_fusion).
"""

import os
from itertools import accumulate
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interpreted import assert_kernel_obeys
from sgl_proxythinker.laws import MAX_MARKER_BYTES
from sgl_proxythinker.step.marked_texts import MarkedRequests
from sgl_proxythinker.step.markers import WrittenTexts, along_in_torch, read_in_torch

# Bytes and pieces of two letters, of a special token, and of a character of three bytes, which some tokens cut.
TOKENS = [
    b"a", b"b", b"ab", b"ba", b"aab", b"abab", b"<", b"</", b"think", b">", b"k>a", b"<|end|>", "€".encode(), b"\xe2",
    b"\x82", b"\xac", b"\xe2\x82", b"\xacb", b"aaaaaaaaaaaaaaaaaaaa", b"", b"ab" * 50, b"\0\0",
]  # fmt: skip
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
EXAMPLES = 30 if INTERPRETED else 100
SLOTS = 7
PROMPT = [0, 1, 2]
DECODE, EXTEND = (SimpleNamespace(is_decode=lambda is_one=is_one: is_one) for is_one in (True, False))

token_lists = st.lists(st.integers(0, len(TOKENS) - 1), max_size=40)


def text_of(tokens) -> bytes:
    return b"".join(TOKENS[token] for token in tokens)


@st.composite
def markers(draw, written: list[int]) -> bytes:
    """Mostly a part of what is written, which begins and ends anywhere."""
    text = text_of(written)
    if len(text) > 1 and draw(st.integers(0, 3)):
        begin = draw(st.integers(0, len(text) - 1))
        return text[begin : begin + draw(st.integers(1, MAX_MARKER_BYTES))]
    return draw(st.sampled_from([b"aab", b"</think>", "€".encode(), "€b€".encode(), b"a" * MAX_MARKER_BYTES]))


@st.composite
def requests(draw) -> list[SimpleNamespace]:
    """Up to six, each with what it writes, a marker or none, and a slot of its own."""
    slots = draw(st.permutations(range(SLOTS)))[: draw(st.integers(1, 6))]
    made = []
    for slot in slots:
        written = draw(token_lists)
        marker = draw(st.one_of(st.none(), markers(written)))
        made.append(SimpleNamespace(slot=slot, written=written, marker=marker))
    return made


def marked(reqs) -> MarkedRequests | None:
    texts = {place: req.marker for place, req in enumerate(reqs) if req.marker is not None}
    return MarkedRequests.of(texts, len(reqs), DEVICE) if texts else None


def batch_of(mode, reqs, generated, known, lengths=None) -> SimpleNamespace:
    """What of a `ScheduleBatch` is read.

    Args:
        generated: tokens of each request that are read once the step has run.
        known: those of which the host knows.
        lengths: tokens of each that this step reads; 1 where there are none.
    """
    lengths = lengths or [1] * len(reqs)
    read = [(PROMPT + req.written)[: len(PROMPT) + count] for req, count in zip(reqs, generated, strict=True)]
    return SimpleNamespace(
        forward_mode=mode,
        reqs=[
            SimpleNamespace(origin_input_ids=PROMPT, output_ids=req.written[:count])
            for req, count in zip(reqs, known, strict=True)
        ],
        req_pool_indices=torch.tensor([req.slot for req in reqs], device=DEVICE),
        seq_lens_cpu=torch.tensor([len(PROMPT) + count for count in generated]),
        extend_lens=lengths,
        input_ids=torch.tensor(
            [token for row, count in zip(read, lengths, strict=True) for token in row[-count:]], device=DEVICE
        ),
    )


def assert_told(told, reqs, generated):
    wanted = [
        req.marker is not None and req.marker in text_of(req.written[:count])
        for req, count in zip(reqs, generated, strict=True)
    ]
    assert told.tolist() == wanted, (reqs, generated)


@pytest.fixture(scope="module", params=["specification", "kernel"] if CUDA or INTERPRETED else ["specification"])
def used_texts(request):
    """Makes `WrittenTexts` with slots that had other requests before."""
    read, along = read_in_torch, along_in_torch
    if request.param == "kernel":
        from sgl_proxythinker.step.markers_kernel import along_by_kernel as along
        from sgl_proxythinker.step.markers_kernel import read_by_kernel as read

    def used_texts() -> WrittenTexts:
        texts = WrittenTexts(TOKENS, SLOTS, DEVICE)
        texts._read, texts._along = read, along
        before = [SimpleNamespace(slot=slot, written=[0, 2, 4], marker=b"a") for slot in range(SLOTS)]
        texts.read(marked(before), batch_of(EXTEND, before, [3] * SLOTS, [3] * SLOTS))
        return texts

    return used_texts


@settings(max_examples=EXAMPLES, deadline=None)
@given(reqs=requests())
def test_each_token_is_told_as_a_search_of_the_whole_text_tells_it(used_texts, reqs):
    """Kills: bytes of a token left out, another slot's text, the text of a slot's last request, the prompt's."""
    if (these := marked(reqs)) is None:
        return
    texts, nothing = used_texts(), [0] * len(reqs)
    assert_told(texts.read(these, batch_of(EXTEND, reqs, nothing, nothing, [3] * len(reqs))), reqs, nothing)
    # The scheduler runs ahead: the host knows a token less than the device.
    for count in range(1, 1 + max(len(req.written) for req in reqs)):
        generated = [min(count, len(req.written)) for req in reqs]
        running = [place for place, req in enumerate(reqs) if len(req.written) >= count]
        some, counts = [reqs[place] for place in running], [generated[place] for place in running]
        if (left := marked(some)) is not None:
            told = texts.read(left, batch_of(DECODE, some, counts, [count - 1 for count in counts]))
            assert_told(told, some, counts)


@settings(max_examples=EXAMPLES, deadline=None)
@given(reqs=requests(), data=st.data())
def test_prompts_and_what_decodes_beside_them_are_told(used_texts, reqs, data):
    """A step may begin a request, go on with a chunk of it, begin one again, and decode others, known or not.

    Kills: a retracted request that forgets what it wrote or has it twice, one token of a step taken for another.
    """
    if (these := marked(reqs)) is None:
        return
    texts = used_texts()
    begun = [data.draw(st.integers(0, len(req.written))) for req in reqs]
    # Of a prompt that is read in chunks the first ends inside of what a person wrote.
    chunk = batch_of(EXTEND, reqs, [-1] * len(reqs), begun, [2] * len(reqs))
    assert_told(texts.read(these, chunk), reqs, [0] * len(reqs))
    lengths = [data.draw(st.integers(1, len(PROMPT) + count)) for count in begun]
    assert_told(texts.read(these, batch_of(EXTEND, reqs, begun, begun, lengths)), reqs, begun)
    decoded = [
        min(count + data.draw(st.integers(0, 1)), len(req.written)) for count, req in zip(begun, reqs, strict=True)
    ]
    known = [data.draw(st.sampled_from([count, before])) for count, before in zip(decoded, begun, strict=True)]
    lengths = [
        1 if told < count else data.draw(st.integers(1, len(PROMPT) + count))
        for told, count in zip(known, decoded, strict=True)
    ]
    assert_told(texts.read(these, batch_of(EXTEND, reqs, decoded, known, lengths)), reqs, decoded)


@settings(max_examples=EXAMPLES, deadline=None)
@given(reqs=requests(), each=st.integers(1, 5), data=st.data())
def test_a_chain_is_told_at_each_place_and_only_what_counts_of_it_is_kept(used_texts, reqs, each, data):
    """Kills: drafts that were not drawn, in the next cycle; a chain's end for its middle."""
    if (these := marked(reqs)) is None:
        return
    texts = used_texts()
    texts.read(these, batch_of(EXTEND, reqs, [0] * len(reqs), [0] * len(reqs), [3] * len(reqs)))
    slots, read = torch.tensor([req.slot for req in reqs], device=DEVICE), [0] * len(reqs)
    for _ in range(4):
        lengths = [data.draw(st.integers(1, each)) for _ in reqs]
        chains = []
        for place, req in enumerate(reqs):
            # What counts is what is written, of which there is always more; other drafts are anything.
            req.written += data.draw(st.lists(st.integers(0, len(TOKENS) - 1), min_size=each, max_size=each))
            right = req.written[read[place] : read[place] + lengths[place]]
            wrong = data.draw(st.lists(st.integers(0, len(TOKENS) - 1), min_size=each, max_size=each))
            chains.append((right + wrong)[:each])
        chain = texts.along(these, slots, torch.tensor(chains, device=DEVICE))
        for place, (req, told) in enumerate(zip(reqs, chain.past_marker.tolist(), strict=True)):
            before = text_of(req.written[: read[place]])
            ends = accumulate((TOKENS[token] for token in chains[place]), initial=before)
            wanted = [req.marker is not None and req.marker in end for end in list(ends)[1:]]
            assert told == wanted
        texts.accept(chain, torch.tensor(lengths, device=DEVICE))
        read = [count + more for count, more in zip(read, lengths, strict=True)]


def test_a_marker_may_be_as_long_as_the_longest_and_end_in_the_first_byte_of_a_token(used_texts):
    marker = b"b" + b"a" * (MAX_MARKER_BYTES - 2) + b"<"
    written = [1, *[0] * (MAX_MARKER_BYTES - 2), 11, 0]
    req = SimpleNamespace(slot=3, written=written, marker=marker)
    texts, told = used_texts(), []
    for count in range(len(written) + 1):
        mode = DECODE if count else EXTEND
        told += texts.read(marked([req]), batch_of(mode, [req], [count], [max(0, count - 1)], [1 if count else 3]))
    assert [bool(one) for one in told] == [False] * MAX_MARKER_BYTES + [True] * 2


@pytest.mark.parametrize("each", [1, 4])
def test_requests_without_a_marker_are_never_past_one(used_texts, each):
    reqs = [SimpleNamespace(slot=slot, written=[0] * 4, marker=b"a" if slot == 1 else None) for slot in (0, 1, 2)]
    chain = used_texts().along(
        marked(reqs), torch.arange(3, device=DEVICE), torch.zeros(3, each, dtype=torch.int64, device=DEVICE)
    )
    assert chain.past_marker.any(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("decodes_beside", [False, True])
def test_a_request_that_begins_again_goes_on_inside_of_its_marker(used_texts, decodes_beside):
    """After a retraction that came when it had written much, and a part of the marker; the next token ends it.

    Kills: the beginning of an answer kept for its end; a token that the host doesn't know yet, of a step with prompts.
    """
    longer_than_kept = [18] * 4
    req = SimpleNamespace(slot=2, written=[*longer_than_kept, 7, 8, 9, 0], marker=b"</think>")
    texts, known = used_texts(), len(longer_than_kept) + 2
    told = [texts.read(marked([req]), batch_of(EXTEND, [req], [known], [known], [len(PROMPT) + known]))]
    for count in (known + 1, known + 2):
        mode = EXTEND if decodes_beside else DECODE
        told.append(texts.read(marked([req]), batch_of(mode, [req], [count], [count - 1])))
    assert [bool(one) for one in told] == [False, True, True]


def test_a_request_does_not_end_the_marker_of_the_one_before_it(used_texts):
    before = SimpleNamespace(slot=2, written=[7, 8], marker=b"</think>")
    after = SimpleNamespace(slot=2, written=[9], marker=b"</think>")
    texts = used_texts()
    texts.read(marked([before]), batch_of(EXTEND, [before], [2], [2], [5]))
    texts.read(marked([after]), batch_of(EXTEND, [after], [0], [0], [3]))
    assert not texts.read(marked([after]), batch_of(DECODE, [after], [1], [0])).any()


def test_a_marker_of_zeros_is_only_where_they_were_written(used_texts):
    """Kills: what lies past a token, which is read as zeros, taken for bytes of it."""
    req = SimpleNamespace(slot=1, written=[0, 21, 1], marker=b"\0\0")
    texts, told = used_texts(), []
    for count in range(4):
        mode, known = (DECODE, count - 1) if count else (EXTEND, 0)
        told += texts.read(marked([req]), batch_of(mode, [req], [count], [known], [1 if count else 3]))
    assert [bool(one) for one in told] == [False, False, True, True]


@pytest.mark.skipif(not (CUDA or INTERPRETED), reason="runs interpreted, in the process of the test below")
@settings(max_examples=30, deadline=None)
@given(reqs=requests(), each=st.integers(1, 5), data=st.data())
def test_the_kernel_equals_the_specification(reqs, each, data):
    """In what it keeps of each slot too. Kills everything that the laws above forgot."""
    from sgl_proxythinker.step.markers_kernel import along_by_kernel, read_by_kernel

    if (these := marked(reqs)) is None:
        return
    fast, specified = (WrittenTexts(TOKENS, SLOTS, DEVICE) for _ in range(2))
    fast._read, fast._along = read_by_kernel, along_by_kernel
    specified._read, specified._along = read_in_torch, along_in_torch
    integers = data.draw(st.sampled_from([torch.int32, torch.int64]))
    slots = torch.tensor([req.slot for req in reqs], device=DEVICE, dtype=integers)
    tokens = st.lists(st.integers(0, len(TOKENS) - 1), min_size=each, max_size=each)
    for _ in range(2):
        chains = torch.tensor([data.draw(tokens) for _ in reqs], device=DEVICE, dtype=integers)
        step = SimpleNamespace(forward_mode=DECODE, req_pool_indices=slots, input_ids=chains[:, 0])
        assert torch.equal(fast.read(these, step), specified.read(these, step))
        told = [texts.along(these, slots.long(), chains) for texts in (fast, specified)]
        assert torch.equal(told[0].past_marker, told[1].past_marker)
        lengths = torch.tensor([data.draw(st.integers(1, each)) for _ in reqs], device=DEVICE)
        for texts, chain in zip((fast, specified), told, strict=True):
            texts.accept(chain, lengths)
        assert torch.equal(fast._texts.last_bytes, specified._texts.last_bytes)
        assert torch.equal(fast._texts.past_marker, specified._texts.past_marker)


def test_the_device_chooses_who_reads():
    """Kills a GPU that is given the slow version, and a CPU that is given the kernel."""
    read = WrittenTexts(TOKENS, SLOTS, DEVICE)._read
    assert read.__name__ == ("read_by_kernel" if CUDA else "read_in_torch")


@pytest.mark.heavy
@pytest.mark.skipif(CUDA or INTERPRETED, reason="the kernel runs in this process")
def test_the_kernel_obeys_the_same_laws_when_interpreted():
    """Kills a mutant of the kernel on a machine without a GPU."""
    assert_kernel_obeys(__file__)
