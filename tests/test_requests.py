"""Every field of a request was looked at: a new one of SGLang's must not slip past guidance."""

import dataclasses

import pytest

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.front import REFUSED_FIELDS, admit_inputs

# What they do is done before, after or around the three forwards, for the request as a whole.
ADMITTED = """
    rid text input_ids image_data mm_hashes use_audio_in_video sampling_params return_logprob logprob_start_len
    top_logprobs_num token_ids_logprob return_sampling_mask return_text_in_logprobs return_flat_raw_top_logprobs
    return_flat_raw_top_logprobs_b64 stream log_metrics routed_experts_start_len modalities custom_logit_processor
    bootstrap_port bootstrap_pair_key decode_tp_size routed_dp_rank disagg_prefill_dp_rank routing_key conversation_id
    http_worker_ipc background require_reasoning max_thinking_tokens priority extra_key no_logs custom_labels
    return_bytes return_entropy return_prompt_token_ids external_trace_header received_time need_wait_for_mm_inputs
    num_items_assigned mm_data_mooncake encoder_urls max_dynamic_patch min_dynamic_patch image_max_dynamic_patch
    video_max_dynamic_patch images_config
""".split()


@pytest.fixture(scope="module")
def request_class():
    from sgl_proxythinker import cpu

    if cpu.is_needed(None):
        cpu.install()
    from sglang.srt.managers.io_struct import GenerateReqInput

    return GenerateReqInput


def test_every_field_is_admitted_or_refused(request_class):
    fields = {field.name for field in dataclasses.fields(request_class)}
    assert fields == set(ADMITTED) | REFUSED_FIELDS.keys() and REFUSED_FIELDS.keys().isdisjoint(ADMITTED)


@pytest.mark.parametrize("field", REFUSED_FIELDS)
def test_a_refused_field_is_named(request_class, field):
    request = request_class(text="x")
    admit_inputs(request, 10)
    setattr(request, field, "set")
    with pytest.raises(RequestError, match=f"{field} can't be used on a guided server: .* .* .*"):
        admit_inputs(request, 10)


def test_arrays_are_not_asked_for_their_truth(request_class):
    import numpy as np

    request = request_class(text="x", input_embeds=np.zeros((2, 4)))
    with pytest.raises(RequestError, match="input_embeds can't be used"):
        admit_inputs(request, 10)


@pytest.mark.parametrize("ids", [[0, 9], [], None])
def test_known_ids_are_admitted(request_class, ids):
    admit_inputs(request_class(text="x", input_ids=ids), 10)


@pytest.mark.parametrize("token", [-1, 10, 10**9])
def test_unknown_ids_are_refused(request_class, token):
    with pytest.raises(RequestError, match=f"input_ids has {token}: .* 0 to 9"):
        admit_inputs(request_class(input_ids=[1, token]), 10)


def test_logprobs_of_known_ids_are_admitted(request_class):
    admit_inputs(request_class(text="x", token_ids_logprob=[0, 9], top_logprobs_num=10), 10)


@pytest.mark.parametrize("token", [-1, 10, 10**9])
def test_logprobs_of_ids_that_only_one_model_has_a_column_for_are_refused(request_class, token):
    """Where a proxy has the scheduler's seat it would read past its narrower head."""
    with pytest.raises(RequestError, match="token_ids_logprob names ids .* 0 to 9"):
        admit_inputs(request_class(text="x", token_ids_logprob=[1, token]), 10)
    with pytest.raises(RequestError, match="top_logprobs_num is 11"):
        admit_inputs(request_class(text="x", top_logprobs_num=11), 10)
