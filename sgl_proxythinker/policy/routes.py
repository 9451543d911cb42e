"""Which of SGLang's HTTP routes a guided server answers.

The law is that of `arguments.py`: every route of SGLang 0.5.17's application stands in exactly one of these
tables, and one that stands in none is refused.

    WORKS       goes through the three models, or tells about them, and is tested
    IRRELEVANT  can't change which token is produced
    REFUSED     would answer from the base alone, change one model of three, or was not tried

Requests without `custom_params` are guided with the server's alpha, and some routes can't carry any. Names
that SGLang takes from the environment (SGLANG_OLLAMA_*_ROUTE, AIP_PREDICT_ROUTE) stand here under their
defaults; renamed, they are refused.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from starlette.routing import Match
from starlette.types import Scope

from sgl_proxythinker.policy.server_arguments import Verdict


class Refusal(NamedTuple):
    why: str  # a sentence
    instead: str  # a sentence: what to do
    routes: str


WORKS: dict[str, str] = {
    "generation with custom_params": """
        /generate /v1/completions /v1/chat/completions /invocations /vertex_generate""",
    "generation with the server's alpha": "/v1/messages /api/generate",
    "acts on requests or on the tree that the three models share": "/abort_request /flush_cache",
    "tells what is served": """
        /model_info /get_model_info /server_info /get_server_info /v1/models /v1/models/{model:path}""",
    "mounted with --enable-metrics": "/metrics",
}

IRRELEVANT: dict[str, str] = {
    "is it alive, and how busy": "/ /ping /health /health_generate /v1/loads /get_load",
    "text and ids, no model": """
        /tokenize /v1/tokenize /detokenize /v1/detokenize /v1/messages/count_tokens""",
    "reads calls or thoughts out of a text, no model": "/parse_function_call /separate_reasoning",
    "names for clients": "/api/tags /api/show /weight_version /get_weight_version",
    "documentation": "/openapi.json /docs /docs/oauth2-redirect /redoc",
    "watching and pacing": """
        /start_profile /stop_profile /set_trace_level /configure_logging /freeze_gc /slow_down""",
}

REFUSED: tuple[Refusal, ...] = (
    Refusal(
        "Scores are logprobs that SGLang computes in the base's forward, before anything is fused.",
        "Generate with logprobs, or ask a plain SGLang server.",
        "/v1/score /v1/rerank",
    ),
    Refusal(
        "Embeddings and classes are read from hidden states, and those would be the base's alone.",
        "Ask a plain SGLang server.",
        "/encode /classify /v1/classify /v1/embeddings",
    ),
    Refusal(
        "Its stored turns and its own loop of tools have not been tried with three models.",
        "Use /v1/chat/completions.",
        "/v1/responses /v1/responses/{response_id} /v1/responses/{response_id}/cancel",
    ),
    Refusal(
        "SGLang 0.5.17 fails on it with the transformers release that it requires.",
        "Use /v1/chat/completions, or /api/generate with a prompt.",
        "/api/chat",
    ),
    Refusal(
        "Only text and images have been tried with three models.",
        "Send text and images to /v1/chat/completions.",
        "/v1/audio/transcriptions /v1/realtime",
    ),
    Refusal(
        "It reads, checks or replaces the weights of one model of three.",
        "Restart the server with the checkpoints to serve.",
        """
        /update_weights_from_disk /update_weights_from_tensor /update_weights_from_distributed
        /update_weights_from_ipc /init_weights_update_group /destroy_weights_update_group
        /update_weight_version /get_weights_by_name /weights_checker
        /init_weights_send_group_for_remote_instance /send_weights_to_remote_instance
        /remote_instance_transfer_engine_info /get_remote_instance_transfer_engine_info""",
    ),
    Refusal(
        "Released weights come back empty, for a trainer to refill, and a trainer knows the base only.",
        "Stop the server to free its memory.",
        "/release_memory_occupation /resume_memory_occupation",
    ),
    Refusal(
        "It exists to change weights between two tokens, and pausing has not been tried with three models.",
        "Use /abort_request to stop requests.",
        "/pause_generation /continue_generation",
    ),
    Refusal(
        "Adapters are refused: SGLang would put the same one into all three models.",
        "Merge the adapter into the checkpoint of the model it was trained for.",
        "/load_lora_adapter /load_lora_adapter_from_tensors /unload_lora_adapter",
    ),
    Refusal(
        "A session holds on to KV between its requests, which has not been tried with three pools.",
        "Send the whole conversation: its prefix is cached.",
        "/open_session /close_session",
    ),
    Refusal(
        "The hierarchical cache is refused: it would save the base's KV only.",
        "Use /flush_cache to empty the radix cache.",
        "/hicache/storage-backend /hicache/storage-backend/clear /clear_hicache_storage_backend",
    ),
    Refusal(
        "It feeds n-gram speculation, which is refused: drafts would be verified against the base's logits.",
        "Decode without drafts.",
        "/add_external_corpus /remove_external_corpus /list_external_corpora",
    ),
    Refusal(
        "It is about mixture-of-experts layers, not about the expert of this server, and was not tried with guidance.",
        "Ask a plain SGLang server of such a model.",
        """
        /start_expert_distribution_record /stop_expert_distribution_record /dump_expert_distribution_record
        /scale_elastic_ep /is_scaling_elastic_ep""",
    ),
    Refusal(
        "What it can set belongs to speculation and pipeline parallelism, and both are refused.",
        "Restart the server with other flags.",
        "/set_internal_state",
    ),
    Refusal(
        "It dumps tensors of three models, and nothing tells them apart.",
        "Debug one model at a time on a plain SGLang server.",
        "/dumper/{method}",
    ),
)

# Routes that act on the server and so on all its clients: they need --admin-api-key. Those that a guided server
# refuses stand here for a server of ours that serves the base alone.
_ADMIN: dict[str, str] = {
    "logs, traces and profiles": """
        /start_profile /stop_profile /set_trace_level /configure_logging
        /start_expert_distribution_record /stop_expert_distribution_record /dump_expert_distribution_record
        /dumper/{method}""",
    "the pace and the cache of all requests": """
        /slow_down /freeze_gc /flush_cache /pause_generation /continue_generation /set_internal_state
        /hicache/storage-backend /hicache/storage-backend/clear /clear_hicache_storage_backend
        /add_external_corpus /remove_external_corpus /list_external_corpora /scale_elastic_ep""",
    "expressions of exponential and quadratic time over any text, in the process that all requests pass": """
        /parse_function_call /separate_reasoning""",
    "weights and memory": """
        /update_weights_from_disk /update_weights_from_tensor /update_weights_from_distributed
        /update_weights_from_ipc /init_weights_update_group /destroy_weights_update_group
        /update_weight_version /get_weights_by_name /weights_checker
        /init_weights_send_group_for_remote_instance /send_weights_to_remote_instance
        /remote_instance_transfer_engine_info /get_remote_instance_transfer_engine_info
        /release_memory_occupation /resume_memory_occupation
        /load_lora_adapter /load_lora_adapter_from_tensors /unload_lora_adapter""",
}
ADMIN = frozenset(route for group in _ADMIN.values() for route in group.split())

# Fields that name files or folders of the server, or become a part of such a name: nobody may set them.
NAMES_FILES: dict[str, tuple[str, ...]] = {
    "/start_profile": ("output_dir", "profile_prefix", "profile_id"),
    "/configure_logging": ("dump_requests_folder", "crash_dump_folder"),
}

_VERDICTS = {
    **{route: Verdict.WORKS for routes in WORKS.values() for route in routes.split()},
    **{route: Verdict.IRRELEVANT for routes in IRRELEVANT.values() for route in routes.split()},
    **{route: Verdict.REFUSED for refusal in REFUSED for route in refusal.routes.split()},
}
_REFUSALS = {route: refusal for refusal in REFUSED for route in refusal.routes.split()}


def classify(template: str) -> Verdict | None:
    """What becomes of a route, written as SGLang registers it; None when nobody has classified it."""
    return _VERDICTS.get(template)


def refusal(path: str) -> str | None:
    """Why a guided server doesn't answer on this path, and what to use instead; None when it does.

    Args:
        path: a route as SGLang registers it, or the path of a request, which one of them matches.
    """
    template = path if path in _VERDICTS else _template_of(path)
    if template is None:
        return (
            f"{path} is not available with guidance. It is not classified: nobody has looked at what it does "
            "to three models. Use /v1/chat/completions or /generate."
        )
    if classify(template) is not Verdict.REFUSED:
        return None
    reason = _REFUSALS[template]
    return f"{path} is not available with guidance. {reason.why} {reason.instead}"


class Routes:
    """The routes of an application; paths without parameters are remembered: a hundred routes are tried one by one.

    Args:
        routes: those of the application, in their order.
    """

    def __init__(self, routes: list[Any]):
        self._routes = routes
        self._found: dict[tuple[Any, ...], str] = {}

    def matching(self, scope: Scope) -> str | None:
        """The route that will answer a request, as SGLang registers it; None when none does, and 404 is upstream's.

        Args:
            scope: ASGI's description of the request.
        """
        key = (len(self._routes), scope["type"], scope.get("method"), scope["path"], scope.get("root_path"))
        if key in self._found:
            return self._found[key]
        route = _matching(self._routes, scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if route == path:  # others are a client's to choose, and many
            self._found[key] = path
        return route


def _matching(routes: list[Any], scope: Scope) -> str | None:
    for route in routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            # A router that FastAPI includes as a whole has no path of its own.
            path = getattr(route, "path", None) or scope["path"].removeprefix(scope.get("root_path", ""))
            return path if path in _VERDICTS else _template_of(path) or path
    return None


def _template_of(path: str) -> str | None:
    return next((template for template, pattern in _PATTERNS.items() if pattern.fullmatch(path)), None)


def _pattern(template: str) -> re.Pattern[str]:
    """Starlette's rule: `{name}` stands for one segment, `{name:path}` for the rest."""
    parts = re.split(r"({\w+(?::path)?})", template)
    return re.compile("".join(map(_part_pattern, parts)))


def _part_pattern(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    return ".+" if part.endswith(":path}") else "[^/]+"


_PATTERNS = {template: _pattern(template) for template in _VERDICTS if "{" in template}
