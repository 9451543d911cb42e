"""Which fields of an HTTP body are obeyed, by route: OpenAI chat and completions, Anthropic, Ollama, (de)tokenize.

The law is that of `arguments.py`: every field that SGLang 0.5.17 declares for a body stands in exactly one of its
three tables, and one that stands in none is refused when it is set.

    works       does what its name says, on three models as on one
    harmless    can't change which tokens are produced
    refused     SGLang drops it without a word, or it would act on one model of three, or it belongs to
                SGLang's own processes

Set means: differs from the field's default; null, [], {} are unset. Names that SGLang doesn't declare are ignored at
the top level of a body, as OpenAI clients expect. /generate takes SGLang's own `GenerateReqInput`, which is not here.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from pydantic import BaseModel

from sgl_proxythinker.errors import RequestError


class Refusal(NamedTuple):
    """Fields that are refused for one reason."""

    why: str  # a clause: "... is set, and WHY"
    instead: str  # a clause: what to do
    fields: str
    allowed: tuple[Any, ...] = ()  # values, besides the default, that ask for nothing
    guided_only: bool = False  # a server that serves the base alone takes it


@dataclass(frozen=True, eq=False)
class Body:
    """The fields of one body, as SGLang declares them."""

    declared_by: str  # "module:Class"
    works: str
    harmless: str
    refused: tuple[Refusal, ...]

    @cached_property
    def refusals(self) -> Mapping[str, Refusal]:
        """Why each field is refused."""
        return {field: refusal for refusal in self.refused for field in refusal.fields.split()}

    @cached_property
    def taken(self) -> frozenset[str]:
        """The fields that are obeyed, or that change nothing."""
        return frozenset(f"{self.works} {self.harmless}".split())

    def refusal(self, field: str) -> Refusal | None:
        return self.refusals.get(field)

    def is_classified(self, field: str) -> bool:
        return field in self.taken or field in self.refusals


def declared(body: Body) -> type[BaseModel]:
    """SGLang's own model of a body."""
    return pkgutil.resolve_name(body.declared_by)


def check_body(sent: dict[str, Any], body: Body, defaults: Mapping[str, Any], is_guided: bool) -> None:
    """Refuse a body in which a field is set that would be lost, or that nobody has classified.

    Args:
        sent: the JSON object that a client sent. Fields that are refused when set, and are not, leave it: SGLang reads
            an empty list as something other than nothing.
        body: the tables of its route.
        defaults: every field that SGLang declares for this body, with its default.
        is_guided: whether three models answer.

    Raises:
        RequestError: HTTP 400; the message names the first such field and what to do.
    """
    for field, value in list(sent.items()):
        if field not in defaults:
            continue
        refusal = body.refusal(field)
        if not _is_set(value, defaults[field]):
            if refusal is not None:
                del sent[field]
        elif refusal is None:
            if not body.is_classified(field):
                raise RequestError(f"{field} can't be used here: it is not classified, so nobody knows what it does.")
        elif not any(_same(value, allowed) for allowed in refusal.allowed) and (is_guided or not refusal.guided_only):
            raise RequestError(f"{field} can't be used here: {refusal.why}; {refusal.instead}.")


def _is_set(value: Any, default: Any) -> bool:
    return not (value is None or _same(value, default) or (isinstance(value, (list, dict, str)) and not value))


def _same(value: Any, other: Any) -> bool:
    """Equal, and not as `True == 1` is."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


# Reasons that several bodies share.
_OWN_PROCESSES = Refusal(
    "it is how SGLang's own servers and routers address each other, and this is one server",
    "leave it out",
    "bootstrap_host bootstrap_port bootstrap_room routed_dp_rank disagg_prefill_dp_rank data_parallel_rank",
)
_SESSIONS = Refusal(
    "a session holds on to KV between its requests, which has not been tried with three models",
    "send all turns, their prefix is cached",
    "session_id",
    guided_only=True,
)
_UNREAD_SESSIONS = Refusal(
    "SGLang reads it on /generate only, and drops it here", "send all turns, their prefix is cached", "session_params"
)
_ADAPTERS = Refusal(
    "an adapter would change one model of three",
    "merge it into the checkpoint of the model it was trained for",
    "lora_path",
    guided_only=True,
)
_PROCESSORS = Refusal(
    "a custom logit processor is code that runs in the scheduler, on one model's logits",
    "use logit_bias, regex, ebnf or response_format",
    "custom_logit_processor",
    guided_only=True,
)
_ONE_MODELS = Refusal(
    "hidden states and expert routing are one model's",
    "ask a plain server for them",
    "return_hidden_states return_routed_experts routed_experts_start_len",
    guided_only=True,
)
_OTHER_PICTURES = Refusal(
    "the models that read it are others, and it would leave the pictures as they are",
    "send the picture in the size that you want it seen",
    "images_config",
)

CHAT = Body(
    "sglang.srt.entrypoints.openai.protocol:ChatCompletionRequest",
    works="""
        messages model input_ids continue_final_message chat_template_kwargs reasoning_effort tools tool_choice
        parallel_tool_calls
        temperature top_p top_k min_p frequency_penalty presence_penalty repetition_penalty logit_bias seed n
        max_tokens max_completion_tokens min_tokens stop stop_token_ids stop_regex ignore_eos no_stop_trim
        response_format regex ebnf custom_params
        stream stream_options logprobs top_logprobs skip_special_tokens separate_reasoning stream_reasoning
        return_cached_tokens_details return_prompt_token_ids return_token_ids return_meta_info
        rid extra_key cache_salt priority""",
    harmless="user",
    refused=(
        _OWN_PROCESSES,
        _SESSIONS,
        _UNREAD_SESSIONS,
        _ADAPTERS,
        _PROCESSORS,
        _ONE_MODELS,
        _OTHER_PICTURES._replace(fields="images_config max_dynamic_patch min_dynamic_patch"),
        Refusal("the models hear no audio", "send text and images", "use_audio_in_video"),
        Refusal("it is read for DeepSeek-V4 only, and dropped here", "write the task into a message", "task"),
    ),
)

COMPLETION = Body(
    "sglang.srt.entrypoints.openai.protocol:CompletionRequest",
    works="""
        prompt model echo
        temperature top_p top_k min_p frequency_penalty presence_penalty repetition_penalty logit_bias seed n
        max_tokens min_tokens stop stop_token_ids stop_regex ignore_eos no_stop_trim
        response_format json_schema regex ebnf custom_params
        stream stream_options logprobs skip_special_tokens return_cached_tokens_details return_token_ids
        rid extra_key cache_salt priority""",
    harmless="user",
    refused=(
        _OWN_PROCESSES,
        _SESSIONS,
        _UNREAD_SESSIONS,
        _ADAPTERS,
        _PROCESSORS,
        _ONE_MODELS,
        _OTHER_PICTURES,
        Refusal(
            "SGLang doesn't choose among answers, and drops it", "ask for n answers and choose", "best_of", allowed=(1,)
        ),
        Refusal("these models don't fill in the middle, and SGLang drops it", "write it into the prompt", "suffix"),
        Refusal(
            "SGLang takes labels here from an HTTP header, and drops it",
            "send the header that --tokenizer-metrics-custom-labels-header names",
            "custom_labels",
        ),
    ),
)

_ANTHROPIC_THINKING = Refusal(
    "SGLang does not keep to a budget of tokens for thinking, and can't leave thinking out of an answer",
    'leave it out, or send {"type": "adaptive"} to a server with --reasoning-parser',
    "thinking",
    allowed=({"type": "disabled"}, {"type": "adaptive"}, {"type": "adaptive", "display": "summarized"}),
)
_ANTHROPIC_OUTPUT = Refusal(
    "SGLang writes its budget to the log only, and chat templates of the models that are served read no effort",
    "use max_tokens, and say in a message how thorough the answer shall be",
    "output_config",
    allowed=({"effort": None}, {"effort": None, "task_budget": None}),
)

MESSAGES = Body(
    "sglang.srt.entrypoints.anthropic.protocol:AnthropicMessagesRequest",
    works="""
        messages model system max_tokens temperature top_p top_k stop_sequences stream tools tool_choice""",
    # The features that `betas` opts into have fields of their own.
    harmless="metadata betas",
    refused=(_ANTHROPIC_THINKING, _ANTHROPIC_OUTPUT),
)

COUNT_TOKENS = Body(
    "sglang.srt.entrypoints.anthropic.protocol:AnthropicCountTokensRequest",
    works="messages model system tools tool_choice",
    harmless="betas",
    refused=(_ANTHROPIC_THINKING, _ANTHROPIC_OUTPUT),
)

OLLAMA_GENERATE = Body(
    "sglang.srt.entrypoints.ollama.protocol:OllamaGenerateRequest",
    works="prompt model system stream options",
    # The prompt is always raw here: no chat template is applied.
    harmless="keep_alive raw",
    refused=(
        Refusal(
            "SGLang drops it on this route, so the pictures would not be seen",
            "send them to /v1/chat/completions or /generate",
            "images",
        ),
        Refusal(
            "SGLang drops it on this route, so the answer would be free text",
            "send response_format to /v1/chat/completions",
            "format",
        ),
        Refusal(
            "SGLang applies no template on this route, and drops it",
            "write the prompt as the model shall see it, or use /v1/chat/completions",
            "template suffix",
        ),
        Refusal(
            "SGLang keeps no state between requests, and drops it",
            "send all turns, their prefix is cached",
            "context",
        ),
        Refusal("SGLang drops it on this route", "use /v1/chat/completions", "think", allowed=(False,)),
    ),
)

# What Ollama calls `options` is a mapping, and SGLang reads these of it.
OLLAMA_OPTIONS = Body(
    "",
    works="temperature top_p top_k num_predict stop presence_penalty frequency_penalty",
    # How Ollama loads and places a model.
    harmless="""
        num_ctx num_batch num_gpu main_gpu num_thread numa low_vram f16_kv vocab_only use_mmap use_mlock""",
    refused=(
        Refusal(
            "SGLang fails on it on this route",
            "send seed to /v1/chat/completions",
            "seed",
        ),
        Refusal(
            "SGLang drops it on this route",
            "use /v1/chat/completions or /generate, whose fields are min_p and repetition_penalty",
            """
            min_p repeat_penalty repeat_last_n typical_p tfs_z mirostat mirostat_tau mirostat_eta penalize_newline
            num_keep""",
        ),
    ),
)

TOKENIZE = Body(
    "sglang.srt.entrypoints.openai.protocol:TokenizeRequest",
    works="""
        prompt messages model tools tool_choice continue_final_message chat_template_kwargs reasoning_effort
        add_special_tokens""",
    harmless="",
    refused=(),
)

DETOKENIZE = Body(
    "sglang.srt.entrypoints.openai.protocol:DetokenizeRequest",
    works="tokens model skip_special_tokens",
    harmless="",
    refused=(),
)

BODIES: dict[str, Body] = {
    "/v1/chat/completions": CHAT,
    "/invocations": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": COUNT_TOKENS,
    "/api/generate": OLLAMA_GENERATE,
    "/tokenize": TOKENIZE,
    "/v1/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
    "/v1/detokenize": DETOKENIZE,
}
