"""Whose each field of SGLang's `ForwardBatch` is: a row's, a token's, the step's, or nobody's in what we serve."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Any

import torch


class Owner(StrEnum):
    """What dividing a batch into rows does with a field."""

    ROW = "a tensor with an element per request"
    ROW_LIST = "a list with an element per request"
    TOKEN = "a tensor whose last dimension has an element per token"
    DERIVED = "made anew from the others"
    STEP = "the same whichever rows are left"
    CHAIN = "the chain of a verify, cut as its tokens are; anything else that stands in it can't be divided"
    BASE = "for the base's sampler and its log probabilities, which a small model has none of"
    UNSERVED = "of what a guided server refuses; a batch in which it is set can't be divided"


_FIELDS: dict[Owner, str] = {
    Owner.ROW: "req_pool_indices seq_lens orig_seq_lens extend_seq_lens extend_prefix_lens",
    Owner.ROW_LIST: "extend_seq_lens_cpu extend_prefix_lens_cpu mm_inputs lora_ids rids",
    Owner.TOKEN: "input_ids out_cache_loc positions mrope_positions",
    Owner.DERIVED: """
        batch_size seq_lens_cpu seq_lens_sum extend_num_tokens extend_start_loc num_token_non_padded
        num_token_non_padded_cpu""",
    Owner.STEP: """
        forward_mode global_forward_mode spec_algorithm capture_hidden_mode return_hidden_states_before_norm
        is_prefill_only is_extend_in_batch can_run_dp_cuda_graph can_run_dp_breakable_cuda_graph""",
    Owner.CHAIN: "spec_info",
    Owner.BASE: """
        return_logprob top_logprobs_nums token_ids_logprobs sampling_info extend_logprob_start_lens_cpu
        extend_input_logprob_token_ids_gpu""",
    Owner.UNSERVED: """
        out_cache_loc_dsv4 mamba_track_indices mamba_track_mask mamba_track_seqlens mamba_cow_src_indices
        mamba_cow_dst_indices mamba_clear_indices input_embeds replace_embeds replace_positions token_type_ids
        encoder_lens encoder_out_cache_loc encoder_cached encoder_lens_cpu dimensions return_pooled_hidden_states
        multi_item_delimiter_indices reuse_dsa_topk_indices minimax_m3_precached_sparse_layers
        tbo_split_seq_index tbo_parent_token_range tbo_padded_len tbo_children
        original_global_num_tokens_cpu global_num_tokens_cpu global_num_tokens_gpu global_num_tokens_for_logprob_cpu
        global_num_tokens_for_logprob_gpu _original_batch_size _original_forward_mode _original_num_tokens
        dp_padding_mode dp_local_start_pos dp_local_num_tokens global_dp_buffer_len
        _attn_output next_token_logits_buffer temperature top_p hidden_states residual model_specific_states split_index
        mm_input_embeds cross_attention_custom_mask attn_cp_metadata attn_dcp_metadata dcp_kv_mask
        ngram_embedding_info rids_int bootstrap_room_ids_int req_all_ids_flat req_all_ids_lens
        forward_metadata_ready forward_metadata_planned_bs forward_metadata_planned_num_tokens
        forward_metadata_replan_equivalent""",
}
OWNERS: Mapping[str, Owner] = MappingProxyType({name: owner for owner in _FIELDS for name in _FIELDS[owner].split()})


def owned_by(owner: Owner) -> list[str]:
    """The names of the fields of one kind."""
    return _FIELDS[owner].split()


def undividable(batch: Any) -> list[str]:
    """The fields that are set in this `ForwardBatch` and of which it isn't known which part belongs to which row.

    A field that a later SGLang adds counts, whatever it holds, once it differs from its default.
    """
    kind: type = type(batch)
    unserved = [name for name, default in _unserved(kind) if _is_set(getattr(batch, name), default)]
    is_chain = batch.spec_info is None or getattr(batch.spec_info, "draft_token_num", 0) * batch.batch_size == len(
        batch.input_ids
    )
    return unserved + ([] if is_chain else owned_by(Owner.CHAIN))


@cache
def _unserved(kind: type) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (field.name, None if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(kind)
        if OWNERS.get(field.name, Owner.UNSERVED) is Owner.UNSERVED
    )


def _is_set(value: Any, default: Any) -> bool:
    if value is None or value is default:
        return False
    return torch.is_tensor(value) or value != default
