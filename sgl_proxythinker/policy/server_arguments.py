"""Which of SGLang's arguments a guided server takes.

The law: every field of SGLang 0.5.17's `ServerArgs` stands in exactly one of these tables.

    TESTED      acts on all three models, or on what they share, as the named test shows
    ARGUED      works for the reason that is given, and no test starts a server with it
    IRRELEVANT  can't change which token is produced
    REFUSED     knows one model only, or was not tried with three

What is tested or argued works; LIMITS holds the values that are let through, of which a test carries one or a few.

A field that is in none of them is refused: SGLang gains flags with every release, and one that nobody has
looked at could serve the base alone under our name.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from sgl_proxythinker.errors import LaunchError


class Verdict(Enum):
    WORKS = "works"
    IRRELEVANT = "irrelevant"
    REFUSED = "refused"


class Limits(NamedTuple):
    """The values, besides SGLang's default, with which a working field is taken."""

    allowed: tuple[Any, ...]
    why: str  # a sentence


class Refusal(NamedTuple):
    why: str  # a sentence
    instead: str  # a sentence: what to do
    fields: str
    allowed: tuple[Any, ...] = ()  # values, besides SGLang's default, that leave the feature off


# By the test, as pytest names it: it, or the server that it asks, sets the field.
TESTED: dict[str, str] = {
    "tests/test_oracle.py": """
        model_path dtype max_total_tokens max_running_requests chunked_prefill_size
        enable_mixed_chunk""",
    # On a GPU: CI has none, and `make gpu-tests` runs these there.
    "tests/test_oracle.py::test_a_cold_and_a_warm_cache_give_the_oracles_tokens": """
        attention_backend mm_attention_backend sampling_backend""",
    "tests/test_seeds.py": "enable_deterministic_inference",
    "tests/test_placements.py": "tp_size nnodes node_rank dist_init_addr",
    "tests/test_placements.py::test_sampled_tokens_are_the_same_on_every_rank": "random_seed",
    "tests/test_memory_pressure.py::test_retracted_requests_give_the_oracles_tokens": "schedule_conservativeness",
    "tests/test_memory_pressure.py::test_a_broken_row_ends_its_request_with_an_error_and_no_other": "enable_metrics",
    "tests/test_memory_pressure.py::test_a_chunk_of_what_is_new_carries_its_trace": "incremental_streaming_output",
    "tests/test_tools_and_templates.py::TestCalls": """
        chat_template tool_call_parser constrained_json_disable_any_whitespace""",
    "tests/test_server_flags.py::TestPaged::test_a_cold_and_a_warm_cache_give_the_oracles_tokens": """
        page_size enable_cache_report""",
    "tests/test_server_flags.py::TestPaged::test_what_is_asked_often_stays_when_pages_are_needed": """
        radix_eviction_policy""",
    "tests/test_server_flags.py::TestPaged::test_steps_are_as_small_as_they_were_asked_for": "prefill_max_requests",
    "tests/test_server_flags.py::TestPaged::test_what_exceeds_the_context_is_cut": """
        context_length allow_auto_truncate""",
    "tests/test_server_flags.py::TestPaged::test_thoughts_are_told_from_the_answer": "reasoning_parser",
    "tests/test_server_flags.py::TestPaged": """
        tokenizer_path load_format model_impl model_config_parser enable_multimodal device schedule_policy
        max_prefill_tokens scheduler_recv_interval disable_overlap_schedule served_model_name""",
    "tests/test_server_flags.py::TestUncached::test_nothing_is_kept_and_the_tokens_are_the_oracles": """
        kv_cache_dtype disable_radix_cache mm_process_config disable_fast_image_processor
        default_chat_template_kwargs""",
    "tests/test_server_flags.py::TestUncached::test_an_urgent_request_takes_a_place_and_nobodys_tokens_change": """
        enable_priority_scheduling schedule_low_priority_values_first default_priority_value
        priority_scheduling_preemption_threshold""",
    "tests/test_server_flags.py::TestUncached::test_the_less_urgent_are_retracted_for_want_of_room": """
        retraction_policy""",
    "tests/test_server_flags.py::TestUncached::test_a_full_queue_sends_away_and_serves_the_others": """
        max_queued_requests""",
    "tests/test_server_flags.py::TestUncached::test_a_stream_comes_in_steps_with_its_usage": """
        stream_interval stream_response_default_include_usage""",
    "tests/test_server_flags.py::TestUncached::test_a_request_without_settings_gets_the_preferred_ones": """
        preferred_sampling_params""",
    "tests/test_server_flags.py::TestUncached::test_json_has_the_blanks_that_were_asked_for": """
        grammar_backend constrained_json_whitespace_pattern""",
    "tests/test_server_flags.py::TestUncached::test_more_pictures_than_the_limit_are_a_400": """
        limit_mm_data_per_request""",
    # As above, on a GPU.
    "tests/test_precisions.py::test_a_server_agrees_with_the_oracle_of_the_same_weights": "quantization",
    "tests/test_server_flags.py::TestUncached::test_it_runs_as_it_was_told": """
        disable_cuda_graph disable_decode_cuda_graph disable_prefill_cuda_graph mm_feature_transport""",
}

# Of the values in LIMITS one that SGLang chooses on a GPU and no flag sets: by the tests that say what it does there.
TESTED_VALUES: dict[str, tuple[str, str]] = {"tests/test_grammars.py": ("grammar_backend", "xgrammar")}

# By the reason, a sentence.
ARGUED: dict[str, str] = {
    "SGLang's loader reads the base with them, and the check before the launch reads it with the same ones; a proxy "
    "has a revision of its own.": "revision trust_remote_code",
    "One tokenizer makes the ids that all three models read.": "tokenizer_mode",
    "Each model's own logits processor casts its rows, and those are fused and travel between ranks in 32 bits.": (
        "enable_fp32_lm_head"
    ),
    "It bounds the bytes of the KV pools, which are shared out by bytes a token so that all three have the same "
    "slots; --max-total-tokens, which is tested, sets the slots themselves.": "mem_fraction_static",
    "Which requests run together is decided once, before the three forwards.": """
        disable_priority_preemption""",
    "A request's priority is a 400 wherever there are none, before SGLang could abort it.": """
        abort_on_priority_when_disabled""",
    "Each model makes its own attention from them, as from --attention-backend.": """
        prefill_attention_backend decode_attention_backend""",
    "It leaves out a kernel that sums over ranks; what is summed instead is the same for each model.": (
        "disable_custom_all_reduce"
    ),
    "It is what a guided server sets.": "enforce_disable_flashinfer_allreduce_fusion",
    "Each model captures its own decode graphs, of the same batch sizes, and a step whose batch has none runs "
    "without.": """
        cuda_graph_backend_decode cuda_graph_max_bs_decode cuda_graph_bs_decode disable_cuda_graph_padding""",
    "They choose text or settings that a request didn't, before there are ids for the three models.": """
        sampling_defaults hf_chat_template_name completion_template""",
}

_ATTENTION = Limits(
    ("triton", "torch_native", "fa3", "flashinfer"),
    "Other kernels have not been tried with three KV pools in one process.",
)

_UNORDERED_PICTURES = (
    "SGLang 0.5.17 hands pixels from process to process on the GPU and waits for neither end (its pull request 33949): "
    "on a busy GPU a model may read another picture."
)

LIMITS: dict[str, Limits] = {
    "attention_backend": _ATTENTION,
    "prefill_attention_backend": _ATTENTION,
    "decode_attention_backend": _ATTENTION,
    "mm_attention_backend": Limits(
        ("sdpa", "triton_attn", "fa3"), "Other kernels have not been tried with three vision towers."
    ),
    "sampling_backend": Limits(("flashinfer", "pytorch"), "Other samplers have not been tried here."),
    "grammar_backend": Limits(
        ("xgrammar", "llguidance", "none"), "Other grammar engines have not been tried on fused logits."
    ),
    "kv_cache_dtype": Limits(
        ("auto", "bf16", "bfloat16", "fp8_e4m3", "fp8_e5m2"),
        "Other layouts of a token's bytes have not been tried in three pools.",
    ),
    "load_format": Limits(
        ("auto", "pt", "safetensors", "dummy"), "Other loaders have not been tried for three checkpoints."
    ),
    "quantization": Limits(
        ("fp8", "awq", "awq_marlin", "gptq", "gptq_marlin", "compressed-tensors"),
        "Other methods have not been tried next to small models of another precision.",
    ),
    "device": Limits(("cuda", "cpu"), "Guidance has been tried on NVIDIA GPUs and on CPUs only."),
    "model_impl": Limits(("auto", "sglang"), "Guidance is tested with SGLang's own model classes."),
    "model_config_parser": Limits(("auto", "hf"), "Guidance is tested with Hugging Face configs."),
    "enable_multimodal": Limits((True,), "Vision models without their images have not been tried."),
    "cuda_graph_backend_decode": Limits(("full", "disabled"), "Other kinds of graphs have not been tried."),
    "mm_feature_transport": Limits(("cpu",), _UNORDERED_PICTURES),
}

IRRELEVANT: dict[str, str] = {
    "addresses, keys and certificates": """
        host port fastapi_root_path enable_http2 ssl_keyfile ssl_certfile ssl_ca_certs ssl_keyfile_password
        enable_ssl_refresh api_key admin_api_key nccl_port dist_timeout engine_info_bootstrap_port""",
    "logs and dumps of requests": """
        log_level log_level_http log_requests log_requests_level log_requests_format log_requests_target
        uvicorn_access_log_exclude_prefixes crash_dump_folder show_time_cost decode_log_interval
        gc_warning_threshold_secs enable_request_time_stats_logging""",
    "what is measured and where it is sent": """
        enable_metrics_for_all_schedulers load_snapshot_publish_interval
        tokenizer_metrics_custom_labels_header tokenizer_metrics_allowed_custom_labels extra_metric_labels
        bucket_time_to_first_token bucket_inter_token_latency bucket_e2e_request_latency
        prompt_tokens_buckets generation_tokens_buckets kv_events_config enable_forward_pass_metrics
        forward_pass_metrics_worker_id forward_pass_metrics_ipc_name enable_trace trace_modules
        otlp_traces_endpoint export_metrics_to_file export_metrics_to_file_dir stat_loggers
        enable_layerwise_nvtx_marker enable_profile_cuda_graph""",
    "where processes run and when they give up": """
        base_gpu_id gpu_id_step numa_node gc_threshold sleep_on_idle watchdog_timeout soft_watchdog_timeout
        custom_sigquit_handler skip_server_warmup warmups enable_p2p_check pre_warm_nccl
        enable_cudagraph_gc""",
    "how the same bytes are read from disk": """
        download_dir weight_loader_disable_mmap weight_loader_prefetch_checkpoints
        weight_loader_prefetch_num_threads weight_loader_drop_cache_after_load disable_outlines_disk_cache""",
    "before and after the models: the ids and the text are the same": """
        enable_dynamic_batch_tokenizer dynamic_batch_tokenizer_batch_size
        dynamic_batch_tokenizer_batch_timeout disable_tokenizer_batch_decode batch_notify_size
        mm_processor_worker_num mm_io_worker_num weight_version""",
    "accepted by 0.5.17 and without effect on these models": """
        num_continuous_decode_steps file_storage_path disable_chunked_prefix_cache""",
}

# One Refusal per reason; the fields that only tune a refused feature stand with it.
REFUSED: tuple[Refusal, ...] = (
    Refusal(
        _UNORDERED_PICTURES,
        "It is an old name of --mm-feature-transport cuda_ipc; leave it out.",
        "keep_mm_feature_on_device",
        allowed=(False,),
    ),
    Refusal(
        "SGLang's own drafts would be verified against the base's logits, not the fused ones.",
        "--proxy-speculate lets the expert draft; else decode without drafts.",
        """
        speculative_algorithm speculative_draft_model_path speculative_draft_model_revision
        speculative_draft_load_format speculative_num_steps speculative_eagle_topk
        speculative_num_draft_tokens speculative_dflash_block_size speculative_dspark_block_size
        speculative_dspark_sps_table_path speculative_dspark_confidence_sts_path
        speculative_dspark_align_verify_tokens_to_graph_tier speculative_accept_threshold_single
        speculative_accept_threshold_acc speculative_use_rejection_sampling speculative_token_map
        speculative_attention_mode speculative_draft_attention_backend speculative_draft_window_size
        speculative_moe_runner_backend speculative_moe_a2a_backend speculative_draft_model_quantization
        speculative_skip_dp_mlp_sync enable_multi_layer_eagle speculative_adaptive
        speculative_adaptive_config decoupled_spec_bind_endpoint decoupled_spec_connect_endpoints
        decoupled_spec_rank decoupled_spec_role spec_trace_dir speculative_ngram_min_bfs_breadth
        speculative_ngram_max_bfs_breadth speculative_ngram_match_type speculative_ngram_max_trie_depth
        speculative_ngram_capacity speculative_ngram_external_corpus_path
        speculative_ngram_external_sam_budget speculative_ngram_external_corpus_max_tokens""",
    ),
    Refusal(
        "SGLang would put the same adapter into all three models.",
        "Merge the adapter into the checkpoint of the model it was trained for.",
        """
        enable_lora enable_lora_overlap_loading max_lora_rank lora_target_modules lora_paths
        max_loaded_loras max_loras_per_batch lora_eviction_policy lora_backend max_lora_chunk_size
        experts_shared_outer_loras lora_use_virtual_experts lora_strict_loading lora_drain_wait_threshold""",
        allowed=(False,),
    ),
    Refusal(
        "Only the base's KV would be saved, and a prefix that is restored is missing in the small models' pools.",
        "Rely on the radix cache, which holds prefixes of all three models on the GPU.",
        """
        enable_hierarchical_cache hicache_ratio hicache_size hicache_write_policy hicache_io_backend
        hicache_mem_layout hicache_storage_backend hicache_storage_prefetch_policy
        hicache_storage_backend_extra_config enable_hisparse hisparse_config enable_lmcache
        lmcache_config_file enable_flexkv flexkv_config_file radix_cache_backend""",
    ),
    Refusal(
        "Only the base's KV would travel from the prefill to the decode server.",
        "Let one server do both; chunked prefill keeps decoding smooth.",
        """
        disaggregation_mode disaggregation_transfer_backend disaggregation_bootstrap_port
        disaggregation_ib_device disaggregation_decode_enable_radix_cache
        disaggregation_decode_enable_offload_kvcache num_reserved_decode_tokens
        disaggregation_decode_extra_slots disaggregation_decode_polling_interval
        optimistic_prefill_attempts mooncake_ib_device""",
    ),
    Refusal(
        "Images would be embedded by one model's vision tower, and each of the three has its own.",
        "Leave it out: each model embeds images itself and has a cache of its own.",
        """
        encoder_only language_only encoder_transfer_backend encoder_urls encoder_bootstrap_port
        encoder_register_urls enable_adaptive_dispatch_to_encoder enable_prefix_mm_cache
        enable_mm_global_cache""",
    ),
    Refusal(
        "Guidance is built and tested with tensor parallelism only.",
        "Use --tp-size.",
        """
        pp_size pp_max_micro_batch_size pp_async_batch_depth enable_dynamic_chunking dcp_size
        dcp_comm_backend dcp_replicate_q_proj attn_cp_size enable_prefill_cp cp_strategy
        enable_cp_decode_attn_tp enable_dsa_cache_layer_split enable_dsa_prefill_context_parallel
        dsa_prefill_cp_mode enable_prefill_context_parallel prefill_cp_mode mm_enable_dp_encoder
        enable_attn_tp_input_scattered disable_attn_tp_gather""",
        allowed=(False,),
    ),
    Refusal(
        "Data-parallel ranks run batches of their own; guidance is tested with one batch on all ranks.",
        "Start one server per replica, behind a router.",
        """
        dp_size load_balance_method enable_dp_attention enable_dp_attention_local_control_broadcast
        enable_dp_lm_head moe_dp_size dwdp_size enable_prefill_delayer prefill_delayer_max_delay_passes
        prefill_delayer_token_usage_low_watermark prefill_delayer_forward_passes_buckets
        prefill_delayer_wait_seconds_buckets prefill_delayer_queue_min_ratio prefill_delayer_max_delay_ms""",
    ),
    Refusal(
        "It is for models of other kinds, or it divides experts in ways that guidance was not tried with.",
        "Leave it out.",
        # mixture of experts
        """
        ep_size moe_a2a_backend moe_runner_backend flashinfer_mxfp4_moe_precision deepep_mode fuseep_mode
        deepep_dispatcher_output_dtype ep_num_redundant_experts ep_dispatch_algorithm init_expert_location
        enable_eplb eplb_algorithm eplb_rebalance_num_iterations eplb_rebalance_layers_per_chunk
        eplb_min_rebalancing_utilization_threshold expert_distribution_recorder_mode
        expert_distribution_recorder_buffer_size enable_expert_distribution_metrics deepep_config
        moe_dense_tp_size elastic_ep_backend enable_elastic_expert_backup enable_waterfill ep_join_mode
        ep_join_rank_offset elastic_ep_initial_size max_ep_size elastic_ep_scale_timeout elastic_ep_rejoin
        disable_flashinfer_cutlass_moe_fp4_allgather disable_shared_experts_fusion
        enforce_shared_experts_fusion enable_fused_moe_sum_all_reduce enable_fused_qk_norm_rope
        enable_return_routed_experts kt_weight_path kt_method kt_cpuinfer kt_threadpool_count
        kt_num_gpu_experts kt_max_deferred_experts_per_token"""
        # state space models, linear and windowed attention
        """
        max_mamba_cache_size mamba_ssm_dtype mamba_backend mamba_max_states_per_path
        mamba_full_memory_ratio enable_mamba_cache_stochastic_rounding mamba_cache_philox_rounds
        mamba_radix_cache_strategy uses_mamba_radix_cache mamba_track_interval enable_int8_mamba_checkpoint
        int8_mamba_ckpt_size linear_attn_backend linear_attn_decode_backend linear_attn_prefill_backend
        linear_attn_verify_backend enable_linear_replayssm linear_replayssm_cache_len
        enable_linear_replayssm_spec swa_full_tokens_ratio disable_hybrid_swa_memory
        enable_page_major_kv_layout enable_unified_memory enable_scattered_sconv"""
        # latent and sparse attention, other vision towers
        """
        dsa_prefill_backend dsa_decode_backend dsa_paged_mqa_logits_backend dsa_topk_backend
        enable_deepseek_v4_fp4_indexer enable_return_indexer_topk flashinfer_mla_disable_ragged
        enable_precise_embedding_interpolation""",
        allowed=(False,),
    ),
    Refusal(
        "One value would be applied to three checkpoints that need not hold the same.",
        "Put it into the checkpoint itself; --proxy-config sets each proxy's revision, dtype, "
        "quantization and load format.",
        """
        json_model_override_args model_loader_extra_config decrypted_config_file
        decrypted_draft_config_file quantization_param_path model_checksum torchao_config modelopt_quant
        modelopt_checkpoint_restore_path modelopt_checkpoint_save_path modelopt_export_path
        quantize_and_serve rl_quant_profile""",
    ),
    Refusal(
        "It deletes the base's checkpoint and leaves those of the small models.",
        "Delete the files after the start.",
        "delete_ckpt_after_loading",
    ),
    Refusal(
        "Weights would be delivered to the base only, or the base's to all three.",
        "Load each model from its own checkpoint, and restart to serve another.",
        """
        custom_weight_loader checkpoint_engine_wait_weights_before_ready weight_cache_mode
        weight_cache_socket weight_cache_timeout remote_instance_weight_loader_seed_instance_ip
        remote_instance_weight_loader_seed_instance_service_port
        remote_instance_weight_loader_send_weights_group_ports remote_instance_weight_loader_backend
        remote_instance_weight_loader_start_seed_via_transfer_engine modelexpress_config""",
    ),
    Refusal(
        "Released weights come back empty, for a trainer to refill, and a trainer knows the base only.",
        "Stop the server to free its memory.",
        "enable_memory_saver enable_weights_cpu_backup enable_draft_weights_cpu_backup",
    ),
    Refusal(
        "SGLang has one offloader for a process, and each model that is built replaces the last one's.",
        "Quantize the base, or raise --tp-size.",
        "cpu_offload_gb offload_group_size offload_num_in_group offload_prefetch_step offload_mode",
    ),
    Refusal(
        "Ray's actors start schedulers without the plugin.",
        "Leave it out: the server starts its own processes.",
        "use_ray",
    ),
    Refusal(
        "gRPC calls go around the table of allowed routes.",
        "Use the HTTP server.",
        "smg_grpc_mode grpc_mode grpc_port smg_http_sidecar_port sidecar sidecar_args",
    ),
    Refusal(
        "The extra processes never load plugins, or have not been tried with them.",
        "Use one of each; --enable-dynamic-batch-tokenizer helps under load.",
        "tokenizer_worker_num detokenizer_worker_num",
    ),
    Refusal(
        "The tokenizer says which columns of the logits are tokens; the others must never be sampled.",
        "Leave it out: requests may carry input_ids all the same.",
        "skip_tokenizer_init",
    ),
    Refusal(
        "With it SGLang answers batches that hold an image with an error.",
        "Leave it out.",
        "enable_tokenizer_batch_encode",
    ),
    Refusal(
        "A session holds on to KV between its requests, which has not been tried with three pools.",
        "Send the whole conversation: its prefix is cached.",
        "enable_streaming_session enable_session_radix_cache",
    ),
    Refusal(
        "Embeddings and scores are taken from the base's forward, before anything is fused.",
        "Ask a plain SGLang server.",
        "is_embedding enable_mis prefill_only_disable_kv_cache",
    ),
    Refusal(
        "Hidden states would be the base's alone.",
        "Ask a plain SGLang server.",
        "enable_return_hidden_states return_hidden_states_mode",
        allowed=(False,),
    ),
    Refusal(
        "A diffusion model has no next-token logits to fuse.",
        "Leave it out.",
        "dllm_algorithm dllm_algorithm_config dllm_fdfo",
        allowed=(False,),
    ),
    Refusal(
        "It interleaves two batches inside one model's forward, and here three models take turns.",
        "Leave it out; mixed chunks (--enable-mixed-chunk) work.",
        """
        enable_two_batch_overlap enable_single_batch_overlap tbo_token_distribution_threshold enable_pdmux
        pdmux_config_path sm_group_num""",
    ),
    Refusal(
        "Three compiled models in one process have not been tried.",
        "Use CUDA graphs to decode, SGLang's default.",
        "enable_torch_compile enable_torch_compile_debug_mode torch_compile_max_bs",
    ),
    Refusal(
        "SGLang captures no prefill graphs for small models, so the base has none either.",
        "Tune decode graphs: --cuda-graph-max-bs-decode, --cuda-graph-bs-decode.",
        """
        cuda_graph_config cuda_graph_backend_prefill cuda_graph_max_bs_prefill cuda_graph_bs_prefill
        cuda_graph_tc_compiler""",
        allowed=("disabled",),
    ),
    Refusal(
        "The choice would hold for all three models, and only SGLang's own was tried with them.",
        "Leave the choice to SGLang.",
        """
        fp8_gemm_runner_backend fp4_gemm_runner_backend bf16_gemm_backend disable_flashinfer_autotune
        flashinfer_autotune_skip_ops triton_attention_reduce_in_fp32 triton_attention_num_kv_splits
        triton_attention_split_tile_size enable_tf32_matmul rl_on_policy_target""",
    ),
    Refusal(
        "Three models share the communicators, and only the default collectives were tried that way.",
        "Leave it out; --disable-custom-all-reduce falls back to NCCL.",
        """
        enable_nccl_nvls enable_symm_mem enable_torch_symm_mem enable_mscclpp enable_quant_communications
        enable_flashinfer_allreduce_fusion flashinfer_allreduce_fusion_backend
        enable_aiter_allreduce_fusion""",
    ),
    Refusal(
        "It would attach to all three models alike, and nothing tells their tensors apart.",
        "Debug one model at a time on a plain SGLang server.",
        """
        forward_hooks debug_tensor_dump_output_folder debug_tensor_dump_layers debug_tensor_dump_input_file
        msprobe_dump_config debug_cuda_graph""",
    ),
    Refusal(
        "The canary watches the base's KV pool only.",
        "Leave it out.",
        "kv_canary kv_canary_real_data kv_canary_sweep_interval",
    ),
    Refusal(
        "It counts the base's operations only and would report them as the server's.",
        "Leave it out.",
        "enable_mfu_metrics",
    ),
    Refusal(
        "Processors have not been tried on fused logits.",
        "Use logit_bias or structured output.",
        "enable_custom_logit_processor",
    ),
    Refusal(
        "It serves /v1/responses only, which is refused.",
        "Use /v1/chat/completions with tools and --tool-call-parser.",
        "tool_server",
    ),
    Refusal(
        "Only text and images have been tried with three models.",
        "Leave it out.",
        "asr_max_buffer_seconds asr_max_concurrent_sessions",
    ),
    Refusal(
        "It was not tried with three models.",
        "Leave it out.",
        """
        tokenizer_backend enable_strict_thinking strip_thinking_cache min_free_slots_delay
        enable_broadcast_mm_inputs_process""",
        allowed=(False,),
    ),
)

# Fields whose flag is not their name.
_FLAGS = {
    "fp8_gemm_runner_backend": "--fp8-gemm-backend",
    "fp4_gemm_runner_backend": "--fp4-gemm-backend",
    "ep_join_mode": "--elastic-ep-join-mode",
    "ep_join_rank_offset": "--elastic-ep-join-rank-offset",
    "uses_mamba_radix_cache": "uses_mamba_radix_cache",  # SGLang sets it by itself; only an engine could be given it
}

_NOT_CLASSIFIED = "It is not classified: nobody has looked at what it does to three models. Leave it out."

_VERDICTS = {
    **{field: Verdict.WORKS for table in (TESTED, ARGUED) for fields in table.values() for field in fields.split()},
    **{field: Verdict.IRRELEVANT for fields in IRRELEVANT.values() for field in fields.split()},
    **{field: Verdict.REFUSED for refusal in REFUSED for field in refusal.fields.split()},
}
_REFUSALS = {field: refusal for refusal in REFUSED for field in refusal.fields.split()}


def verdict(field: str) -> Verdict | None:
    """What becomes of a field of `ServerArgs`; None when nobody has classified it."""
    return _VERDICTS.get(field)


def fields_that_act() -> frozenset[str]:
    """The fields of `ServerArgs` that are taken and may change which token is produced."""
    return frozenset(field for field, each in _VERDICTS.items() if each is Verdict.WORKS)


def flag(field: str) -> str:
    """How a person writes the field on the command line."""
    return _FLAGS.get(field, "--" + field.replace("_", "-"))


def check_arguments(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse what three models can't do. For servers with proxies; a plain one takes whatever SGLang takes.

    Args:
        given: arguments by field name, as the user gave them, before SGLang resolves any. A name that is no
            field, as SGLang's parser has some, counts as not given while it is None.
        defaults: the defaults of `ServerArgs`, by field name.

    Raises:
        LaunchError: names every flag that stands in the way, why, and what to do instead.
    """
    problems = [
        f"{_typed(field, value)}: {problem}"
        for field, value in given.items()
        if value != defaults.get(field) and (problem := _problem(field, value))
    ]
    if problems:
        raise LaunchError(
            "a server whose base is guided by an expert and an amateur can't be started with\n  "
            + "\n  ".join(problems)
        )


def _problem(field: str, value: Any) -> str | None:
    match verdict(field):
        case Verdict.IRRELEVANT:
            return None
        case Verdict.WORKS:
            limits = LIMITS.get(field)
            if limits is None or value in limits.allowed:
                return None
            return f"{limits.why} Use {', '.join(map(str, limits.allowed))}, or leave it out."
        case Verdict.REFUSED:
            refusal = _REFUSALS[field]
            return None if value in refusal.allowed else f"{refusal.why} {refusal.instead}"
    return _NOT_CLASSIFIED


def _typed(field: str, value: Any) -> str:
    """The argument as a person typed it, a switch without its value."""
    if value is True:
        return flag(field)
    text = str(value)
    return f"{flag(field)} {text if len(text) <= 60 else text[:57] + '...'}"
