"""Everything this project changes in SGLang, one file per symbol, and what it only calls."""

from sgl_proxythinker.patches import (
    engine_launch_subprocesses,
    function_call_parser_get_structure_constraint,
    function_call_utils_get_tool_schema,
    generate_req_input_handle_parallel_sampling,
    openai_serving_chat_handle_last_assistant_message,
    openai_serving_chat_process_tool_call_stream,
    openai_serving_chat_validate_request,
    scheduler_get_init_info,
    scheduler_init_tp_model_worker,
    scheduler_process_batch_result,
    server_args_add_cli_args,
    server_args_from_cli_args,
    signal_handler_running_phase_sigquit_handler,
    tokenizer_manager_create_tokenized_object,
    tokenizer_manager_tokenize_one_request,
    tokenizer_manager_wait_one_response,
)
from sgl_proxythinker.patches.calls import CALLS

# When each hook is installed: with the plugin; in the main process of a server that asked for us; in its schedulers.
COMMAND_LINE = (server_args_add_cli_args, server_args_from_cli_args)
FRONT = (
    engine_launch_subprocesses,
    generate_req_input_handle_parallel_sampling,
    tokenizer_manager_tokenize_one_request,
    tokenizer_manager_create_tokenized_object,
    tokenizer_manager_wait_one_response,
    signal_handler_running_phase_sigquit_handler,
    openai_serving_chat_validate_request,
    openai_serving_chat_handle_last_assistant_message,
    openai_serving_chat_process_tool_call_stream,
    function_call_parser_get_structure_constraint,
    function_call_utils_get_tool_schema,
)
SCHEDULER = (
    scheduler_init_tp_model_worker,
    scheduler_get_init_info,
    scheduler_process_batch_result,
)

RECORDS = (*(patch.UPSTREAM for patch in (*COMMAND_LINE, *FRONT, *SCHEDULER)), *CALLS)
