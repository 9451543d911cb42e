"""SGLang names of its front end; importing them imports no server."""

from sglang.lang.api import gen
from sglang.lang.backend.base_backend import BaseBackend
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint
from sglang.lang.chat_template import ChatTemplate
from sglang.lang.choices import ChoicesDecision, ChoicesSamplingMethod
from sglang.lang.interpreter import StreamExecutor
from sglang.lang.ir import SglArgument, SglExpr, SglSamplingParams, SglSelect
from sglang.utils import http_request

__all__ = [
    "BaseBackend",
    "ChatTemplate",
    "ChoicesDecision",
    "ChoicesSamplingMethod",
    "RuntimeEndpoint",
    "SglArgument",
    "SglExpr",
    "SglSamplingParams",
    "SglSelect",
    "StreamExecutor",
    "gen",
    "http_request",
]
