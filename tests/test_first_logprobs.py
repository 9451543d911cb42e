"""What a request is told of its first token, when it was retracted before that token was known.

SGLang sends the results of a prefill to all its requests, also to one that was retracted meanwhile and has no token.
"""

from __future__ import annotations

from array import array

import pytest

from sgl_proxythinker.patches import generation_stream_accumulator_accept

pytestmark = pytest.mark.usefixtures("sglang")

TOKENS, LOGPROBS = [7, 8, 9], [-0.5, -0.25, -0.125]


def sent_of(req, accept):
    """What the next message says of a request: ids and logprobs, None where it isn't in the message."""
    from sglang.srt.disaggregation.utils import DisaggregationMode
    from sglang.srt.managers.scheduler_components.output_streamer import _GenerationStreamAccumulator
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    message = _GenerationStreamAccumulator(
        return_logprob=True,
        return_hidden_states=False,
        return_routed_experts=False,
        return_indexer_topk=False,
        spec_algorithm=SpeculativeAlgorithm.NONE,
        disaggregation_mode=DisaggregationMode.NULL,
        default_stream_interval=1,
        default_force_stream_interval=50,
        get_cached_tokens_details=lambda req: None,
        rust_server_mode=False,
    )
    accept(message, req=req)
    if not message.rids:
        return None
    return list(message.output_ids[0]), message.output_token_logprobs_val[0], message.input_token_logprobs_val[0]


def new_request(**options):
    """SGLang's, of a prompt of three tokens."""
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams

    params = SamplingParams(max_new_tokens=3)
    params.normalize(None)
    return Req("a", "", array("q", [1, 2, 3]), params, return_logprob=True, **options)


def end(req, length):
    from sglang.srt.managers.schedule_batch import FINISH_LENGTH

    req.finished_reason = FINISH_LENGTH(length)


def stock(message, *, req):
    type(message).accept(message, req=req)


def ours(message, *, req):
    generation_stream_accumulator_accept.around(stock, message, req=req)


@pytest.mark.parametrize(("accept", "is_complete"), [(ours, True), (stock, False)])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_was_retracted_before_its_first_token_has_all_logprobs(accept, is_complete, stream):
    """Kills: no hook; and says when SGLang needs none any more."""
    req = new_request(stream=stream)
    req.is_retracted = True
    nothing = sent_of(req, accept)
    assert nothing is None if is_complete else nothing[:2] == ([], [])

    req.is_retracted = False
    req.output_ids.extend(TOKENS)
    req.logprob.output_token_logprobs_val, req.logprob.output_token_logprobs_idx = list(LOGPROBS), list(TOKENS)
    req.logprob.input_token_logprobs_val = [None, -1.0, -2.0]
    end(req, 3)
    ids, logprobs, of_prompt = sent_of(req, accept)
    assert ids == TOKENS
    assert logprobs == (LOGPROBS if is_complete else LOGPROBS[1:]) and of_prompt == [None, -1.0, -2.0]


def test_a_request_that_ends_without_a_token_is_told_so():
    """Kills: one that is aborted before its first token and waits for ever."""
    req = new_request()
    end(req, 0)
    assert sent_of(req, ours)[0] == []
