"""Which drafts counted, told from a stream and SGLang's histogram: those after the end of an answer are not judged."""

import pytest

from benchmarks.draft_acceptance import Answer, Chain, chains

K = 3


@pytest.mark.parametrize(
    ("kept", "histogram", "last"),
    [
        ([4, 1, 2], [1, 1, 0, 1], Chain(1, 2)),  # one right, then the end in the place of a wrong one
        ([4, 1, 2], [1, 0, 1, 1], Chain(2, 2)),  # the second right one was the end, and the third wrong
        ([4, 1, 2], [1, 0, 0, 2], Chain(2, 2)),  # the third was right too, after the end
        ([4, 1, 4], [1, 0, 0, 2], Chain(3, 3)),  # all right, and the end after them
        ([4, 1, 1], [2, 0, 0, 1], Chain(0, 1)),
        ([4, 1, 1], [1, 1, 0, 1], Chain(1, 1)),
    ],
)
def test_a_chain_is_judged_up_to_the_end_of_the_answer(kept, histogram, last):
    """Kills: the histogram as it stands; the tokens that were kept, less one."""
    assert chains(Answer(kept, 3, histogram), K) == [Chain(3, 3), Chain(0, 1), last]


def test_cycles_whose_messages_came_together_are_not_told():
    assert chains(Answer([5, 2], 3, [1, 1, 0, 1]), K) is None


def test_an_answer_of_the_prompts_token_alone_has_no_drafts():
    assert chains(Answer([], 0, []), K) == []
