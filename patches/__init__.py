"""Everything this project changes in SGLang, one file per symbol, and what it only calls."""

from sgl_proxythinker.patches import (
    base_multimodal_processor_process_and_combine_mm_data,
    engine_launch_subprocesses,
    generate_req_input_handle_parallel_sampling,
    openai_serving_chat_process_messages,
    scheduler_get_init_info,
    scheduler_init_tp_model_worker,
    scheduler_process_batch_result,
    server_args_add_cli_args,
    server_args_from_cli_args,
    signal_handler_running_phase_sigquit_handler,
    stream_executor_execute_image,
    tokenizer_manager_create_tokenized_object,
    tokenizer_manager_should_use_batch_tokenization,
    tokenizer_manager_tokenize_one_request,
    tokenizer_manager_wait_one_response,
)
from sgl_proxythinker.patches.calls import CALLS

# When each hook is installed: with the plugin; in the main process of a server that asked for us; in its schedulers;
# in a process with a backend for programs.
COMMAND_LINE = (server_args_add_cli_args, server_args_from_cli_args)
FRONT = (
    engine_launch_subprocesses,
    generate_req_input_handle_parallel_sampling,
    tokenizer_manager_should_use_batch_tokenization,
    tokenizer_manager_tokenize_one_request,
    tokenizer_manager_create_tokenized_object,
    base_multimodal_processor_process_and_combine_mm_data,
    openai_serving_chat_process_messages,
    tokenizer_manager_wait_one_response,
    signal_handler_running_phase_sigquit_handler,
)
SCHEDULER = (
    scheduler_init_tp_model_worker,
    scheduler_get_init_info,
    scheduler_process_batch_result,
)
PROGRAMS = (stream_executor_execute_image,)

RECORDS = (*(patch.UPSTREAM for patch in (*COMMAND_LINE, *FRONT, *SCHEDULER, *PROGRAMS)), *CALLS)
