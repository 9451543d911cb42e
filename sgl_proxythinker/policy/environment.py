"""SGLang's environment variables that switch on what `arguments.py` refuses as a flag."""

from __future__ import annotations

from collections.abc import Mapping

from sgl_proxythinker.errors import LaunchError

REFUSED: dict[str, str] = {
    "SGLANG_RUST_SERVER": "its front end validates no custom_params, so requests would be guided by chance",
    "SGLANG_GRPC_PORT": "its front end validates no custom_params, so requests would be guided by chance",
    "SGLANG_ENABLE_POST_CAPTURE_KV_SIZING": "it grows the base's KV pool past those of the expert and the amateur",
    "SGLANG_BLOCK_NONZERO_RANK_CHILDREN": "a node without the HTTP server would end while its ranks serve",
    "SGLANG_EXPERIMENTAL_CPP_RADIX_TREE": "it ignores extra_key, which keeps prefixes that the base alone has "
    "read from guided requests",
    "SGLANG_ENABLE_UNIFIED_RADIX_TREE": "it was not tried whether it keeps prefixes that the base alone has read "
    "from guided requests",
    "SGLANG_VIT_ENABLE_CUDA_GRAPH": "its graphs of the vision tower were not tried with three towers in a process",
    "SGLANG_KV_CANARY_ENABLE_WRITE_INPUT_ASSERT": "the canary watches one KV pool of three",
    "SGLANG_KV_CANARY_ENABLE_TOKEN_ORACLE": "the canary watches one KV pool of three",
    "SGLANG_KV_CANARY_ENABLE_VERIFY_TOKEN_ASSERT": "the canary watches one KV pool of three",
    "SGLANG_KV_CANARY_ENABLE_MHA_V": "the canary watches one KV pool of three",
}

_OFF = ("", "0", "false", "no", "off", "n", "f")


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse variables that no flag shows.

    Raises:
        LaunchError: names every variable in the way and why.
    """
    problems = [
        f"{name}={environment[name]}: {why}" for name, why in REFUSED.items()
        if environment.get(name, "").lower() not in _OFF
    ]  # fmt: skip
    if problems:
        raise LaunchError("unset these environment variables to serve with guidance\n  " + "\n  ".join(problems))
