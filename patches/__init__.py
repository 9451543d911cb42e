"""Everything this project changes in SGLang, one file per symbol, and what it only calls."""

from sgl_proxythinker.patches import (
    base_grammar_backend_init_value_dispatch,
    base_multimodal_processor_process_and_combine_mm_data,
    batch_result_processor_accept_grammar_tokens,
    batch_result_processor_apply_prefill_grammar,
    detokenizer_manager_decode_batch_token_id_output,
    engine_launch_subprocesses,
    function_call_parser_get_structure_constraint,
    function_call_utils_get_tool_schema,
    generate_req_input_handle_parallel_sampling,
    get_max_seq_length,
    guidance_grammar_fill_vocab_mask,
    http_server_orjson_request_json,
    multi_modal_static_cache_set,
    openai_serving_chat_generate_stream_content,
    openai_serving_chat_handle_last_assistant_message,
    openai_serving_chat_process_logprobs_tokens,
    openai_serving_chat_process_messages,
    openai_serving_chat_process_tool_call_stream,
    openai_serving_chat_validate_request,
    req_update_finish_state,
    scheduler_get_init_info,
    scheduler_handle_generate_request,
    scheduler_init_tp_model_worker,
    scheduler_process_batch_result,
    scheduler_run_event_loop,
    server_args_add_cli_args,
    server_args_from_cli_args,
    signal_handler_running_phase_sigquit_handler,
    stream_executor_execute_image,
    subprocess_watchdog_check_processes,
    to_openai_style_logprobs,
    tokenizer_manager_abort_request,
    tokenizer_manager_collect_metrics,
    tokenizer_manager_create_tokenized_object,
    tokenizer_manager_detokenize_logprob_tokens,
    tokenizer_manager_generate_request,
    tokenizer_manager_handle_batch_output,
    tokenizer_manager_should_use_batch_tokenization,
    tokenizer_manager_tokenize_one_request,
    tokenizer_manager_wait_one_response,
    xgrammar_grammar_fill_vocab_mask,
)
from sgl_proxythinker.patches.calls import CALLS

# When each hook is installed: with the plugin; in the main process of a server that asked for us; in its schedulers;
# in its detokenizer; in a process with a backend for programs.
COMMAND_LINE = (server_args_add_cli_args, server_args_from_cli_args)
FRONT = (
    engine_launch_subprocesses,
    get_max_seq_length,
    generate_req_input_handle_parallel_sampling,
    tokenizer_manager_generate_request,
    tokenizer_manager_abort_request,
    tokenizer_manager_should_use_batch_tokenization,
    tokenizer_manager_tokenize_one_request,
    tokenizer_manager_create_tokenized_object,
    base_multimodal_processor_process_and_combine_mm_data,
    openai_serving_chat_process_messages,
    tokenizer_manager_wait_one_response,
    tokenizer_manager_handle_batch_output,
    tokenizer_manager_collect_metrics,
    tokenizer_manager_detokenize_logprob_tokens,
    to_openai_style_logprobs,
    openai_serving_chat_process_logprobs_tokens,
    openai_serving_chat_generate_stream_content,
    subprocess_watchdog_check_processes,
    signal_handler_running_phase_sigquit_handler,
    openai_serving_chat_validate_request,
    openai_serving_chat_handle_last_assistant_message,
    openai_serving_chat_process_tool_call_stream,
    function_call_parser_get_structure_constraint,
    function_call_utils_get_tool_schema,
)
# In a process with an HTTP server, beside the front's.
HTTP = (http_server_orjson_request_json,)
SCHEDULER = (
    scheduler_init_tp_model_worker,
    scheduler_get_init_info,
    scheduler_process_batch_result,
    scheduler_handle_generate_request,
    scheduler_run_event_loop,
    req_update_finish_state,
    multi_modal_static_cache_set,
    base_grammar_backend_init_value_dispatch,
    batch_result_processor_accept_grammar_tokens,
    batch_result_processor_apply_prefill_grammar,
    guidance_grammar_fill_vocab_mask,
    xgrammar_grammar_fill_vocab_mask,
)
DETOKENIZER = (detokenizer_manager_decode_batch_token_id_output,)
PROGRAMS = (stream_executor_execute_image,)

RECORDS = (
    *(patch.UPSTREAM for patch in (*COMMAND_LINE, *FRONT, *HTTP, *SCHEDULER, *DETOKENIZER, *PROGRAMS)),
    *CALLS,
)
