"""Records of SGLang's definitions that this project subclasses or calls, and does not change."""
# ruff: noqa: E501 -- a signature stands on one line, as read_upstream prints it

from sgl_proxythinker.patches._upstream import Upstream


def _call(symbol: str, signature: str, digest: str, why: str) -> Upstream:
    return Upstream(symbol, signature, {"0.5.17": digest}, why, until="it is not used any more")


CALLS: tuple[Upstream, ...] = (
    _call(
        "sglang.srt.plugins.hook_registry:HookRegistry.apply_hooks",
        "(cls)",
        "5d240d4bb6aa",
        "every hook is applied by it, and `_hooks` and `_patched` are read",
    ),
    _call(
        "sglang.srt.managers.tp_worker:TpModelWorker.__init__",
        "(self, server_args, gpu_id, ps, nccl_port, is_draft_worker=False, req_to_token_pool=None, token_to_kv_pool_allocator=None, memory_pool_config=None, is_multi_layer_eagle=False, context_length=None)",
        "9095aa67814e",
        "the worker of each model is built with it",
    ),
    _call(
        "sglang.srt.managers.tp_worker:TpModelWorker.alloc_memory_pool",
        "(self, memory_pool_config=None, req_to_token_pool=None, token_to_kv_pool_allocator=None)",
        "795767ffca82",
        "the proxies' pools are given the base's slots through it",
    ),
    _call(
        "sglang.srt.managers.tp_worker:TpModelWorker.init_attention_backends",
        "(self)",
        "90151e9f6333",
        "the worker in the seat does it for three models",
    ),
    _call(
        "sglang.srt.managers.tp_worker:TpModelWorker.init_cuda_graphs",
        "(self, capture_decode_cuda_graph=True)",
        "f05def96c111",
        "the worker in the seat does it for three models",
    ),
    _call(
        "sglang.srt.managers.tp_worker:TpModelWorker.forward_batch_generation",
        "(self, batch, forward_batch=None, pp_proxy_tensors=None, is_verify=False, skip_attn_backend_init=None, *, capture_hidden_mode=None)",
        "b319569f48f6",
        "all its exits must take their logits from ModelRunner.forward",
    ),
    _call(
        "sglang.srt.managers.tp_worker:TpModelWorker.forward_batch_split_prefill",
        "(self, batch)",
        "8cf99980004a",
        "it forwards without a step's strengths, which must stay an error",
    ),
    _call(
        "sglang.srt.managers.tp_worker:BaseTpWorker.get_memory_pool",
        "(self)",
        "ae4e1b568208",
        "the proxies share what it returns",
    ),
    _call(
        "sglang.srt.managers.tp_worker:BaseTpWorker.war_fastpath_runner",
        "(self)",
        "c637e09cc2a0",
        "the base must run last, because the scheduler waits for the event of the base's runner",
    ),
    _call(
        "sglang.srt.model_executor.model_runner:ModelRunner.__init__",
        "(self, model_config, mem_fraction_static, gpu_id, ps, nccl_port, server_args, is_draft_worker=False, req_to_token_pool=None, token_to_kv_pool_allocator=None, memory_pool_config=None, draft_model_idx=None)",
        "a4a325a47164",
        "with is_draft_worker it must leave the process-wide state of the base alone",
    ),
    _call(
        "sglang.srt.model_executor.model_runner:ModelRunner.forward",
        "(self, forward_batch, skip_attn_backend_init=None, pp_proxy_tensors=None, reinit_attn_backend=False, split_forward_count=1)",
        "b4fce4306a15",
        "the fused row takes the place of what it returns",
    ),
    _call(
        "sglang.srt.model_executor.model_runner:ModelRunner.alloc_memory_pool",
        "(self, memory_pool_config=None)",
        "984decc0c2a7",
        "it must size the pool with the configurator that init_kv_cache_configurator left",
    ),
    _call(
        "sglang.srt.model_executor.model_runner:ModelRunner.init_kv_cache_configurator",
        "(self)",
        "8a53d89f92d4",
        "its configurator is replaced by a subclass that knows three models",
    ),
    _call(
        "sglang.srt.mem_cache.kv_cache_configurator:KVCacheConfigurator.configure",
        "(self, *, pre_model_load_memory)",
        "469864d1c461",
        "pool sizes come from the two methods that we override",
    ),
    _call(
        "sglang.srt.mem_cache.kv_cache_configurator:KVCacheConfigurator._profile_available_bytes",
        "(self, pre_model_load_memory)",
        "c185034b24af",
        "the base's share is taken of what it returns",
    ),
    _call(
        "sglang.srt.mem_cache.kv_cache_configurator:KVCacheConfigurator._resolve_memory_pool_config",
        "(self, pre_model_load_memory)",
        "1429185ccb0d",
        "the proxies' pools take the base's answer in its place",
    ),
    _call(
        "sglang.srt.model_executor.pool_configurator:create_memory_pool_configurator",
        "(kvc)",
        "8c5b434d28c3",
        "it picks the class that knows a token's bytes",
    ),
    _call(
        "sglang.srt.model_executor.pool_configurator:DefaultPoolConfigurator.__init__",
        "(self, kvc)",
        "5a2e59bb7542",
        "its `_cell_size` is read: a token's bytes in one model's pool",
    ),
    _call(
        "sglang.srt.model_executor.forward_batch_info:ForwardBatch",
        "class(ForwardBatchDeepSeekMHAMixin)",
        "1dd60647f4bd",
        "the proxies run on shallow copies of the base's batch",
    ),
    _call(
        "sglang.srt.model_executor.forward_batch_info:CaptureHiddenMode",
        "class(IntEnum)",
        "a27276c08d36",
        "the proxies capture no hidden states",
    ),
    _call(
        "sglang.srt.model_executor.graph_shared_output:GraphSharedOutput",
        "class()",
        "ed675bfe5fb2",
        "graphs of equally wide models write into one buffer, which is why logits are copied",
    ),
    _call(
        "sglang.srt.managers.mm_utils:general_mm_embed_routine",
        "(input_ids, forward_batch, language_model, multimodal_model=None, data_embedding_funcs=None, placeholder_tokens=None, use_deepstack={}, **kwargs)",
        "5ef7438d453d",
        "each model embeds the images of a batch with it, with a cache of its own",
    ),
    _call(
        "sglang.srt.managers.mm_utils:embed_mm_inputs",
        "(mm_inputs_list, extend_prefix_lens, extend_seq_lens, input_ids, input_embedding, multimodal_model=None, data_embedding_func_mapping=None, placeholder_tokens=None, use_deepstack={})",
        "e2e9df75bd42",
        "it clamps input ids in place, which is why each proxy gets a copy",
    ),
    _call(
        "sglang.srt.managers.mm_utils:init_mm_embedding_cache",
        "(max_size=0)",
        "12d9dd349c8a",
        "it makes the process-wide cache that is swapped around a proxy's forward",
    ),
    _call(
        "sglang.srt.mem_cache.multimodal_cache:MultiModalStaticCache",
        "class(MultimodalCache)",
        "c725d9e3c25b",
        "each proxy has an image cache of its own",
    ),
    _call(
        "sglang.srt.speculative.draft_worker_common:draft_server_args_copy",
        "(server_args, target_model_config)",
        "62dd60405848",
        "the proxies' arguments are made with it",
    ),
    _call(
        "sglang.srt.runtime_context:RuntimeContext.preserve_config",
        "(self)",
        "6f653c66fca8",
        "a proxy is built with arguments of its own, and the base's come back",
    ),
    _call(
        "sglang.srt.runtime_context:RuntimeContext.set_server_args",
        "(self, server_args)",
        "3d08fe615652",
        "a proxy is built with arguments of its own, and the base's come back",
    ),
    _call(
        "sglang.srt.runtime_context:get_context",
        "()",
        "4b0551061c4c",
        "it finds the process' configuration",
    ),
    _call(
        "sglang.srt.environ:Envs",
        "class()",
        "e3d0ab84acd3",
        "the size of the image cache is read from it",
    ),
    _call(
        "sglang.srt.server_args:ServerArgs.override",
        "(self, source, **fields)",
        "b0d896dc12b7",
        "a proxy's path, revision and formats are set with it",
    ),
    _call(
        "sglang.srt.server_args:ServerArgs.__setattr__",
        "(self, name, value)",
        "110a8ad886fe",
        "our configuration travels under a name with an underscore",
    ),
    _call(
        "sglang.srt.entrypoints.engine:Engine.__init__",
        "(self, **kwargs)",
        "109c87b0aec6",
        "the offline engine is a subclass that hands it ServerArgs",
    ),
    _call(
        "sglang.srt.managers.scheduler:run_scheduler_process",
        "(server_args, port_args, gpu_id, tp_rank, attn_cp_rank, moe_dp_rank, moe_ep_rank, pp_rank, dp_rank, pipe_writer, display_tp_rank=None, display_dp_rank=None, display_moe_ep_rank=None)",
        "f039d195162b",
        "our process function calls it, and relies on what it reports when it is ready",
    ),
    _call(
        "sglang.srt.managers.detokenizer_manager:run_detokenizer_process",
        "(server_args, port_args, detokenizer_manager_class=DetokenizerManager)",
        "68c0a7f8c2e9",
        "our process function calls it",
    ),
    _call(
        "sglang.srt.managers.schedule_batch:Req.update_finish_state",
        "(self, new_accepted_len=1)",
        "e77b51c7bca2",
        "a request whose row is broken ends through `to_finish`",
    ),
    _call(
        "sglang.srt.managers.schedule_batch:FINISH_ABORT",
        "class(BaseFinishReason)",
        "868cab4e536e",
        "a request whose row is broken ends with it",
    ),
    _call(
        "sglang.srt.mem_cache.common:release_kv_cache",
        "(req, tree_cache, is_insert=True)",
        "22899438db47",
        "a broken request's keys and values stay out of the tree through `skip_radix_cache_insert`",
    ),
    _call(
        "sglang.srt.sampling.sampling_batch_info:SamplingBatchInfo.apply_logits_bias",
        "(self, logits)",
        "9f9eed510161",
        "penalties, grammar and bias must be applied to the fused row, after the forward",
    ),
    _call(
        "sglang.srt.utils.hf_transformers.common:get_context_length",
        "(config)",
        "59f4e15a4455",
        "the context length is the smallest of the three",
    ),
    _call(
        "sglang.srt.utils.common:is_cpu",
        "()",
        "63f8bb9c5770",
        "its cached answer is forgotten when the CPU support is installed",
    ),
)
