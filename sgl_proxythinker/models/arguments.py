"""The arguments that each model of the roster is built with, from the one command line."""

from __future__ import annotations

import copy
from typing import Any

from sgl_proxythinker.config import ModelSpec
from sgl_proxythinker.roles import Role
from sgl_proxythinker.upstream.runtime import draft_server_args_copy

# How many tokens a chain has stays: the request table of a rank without the base is sized by it.
_OF_AN_ALGORITHM = ("speculative_algorithm", "speculative_eagle_topk", "speculative_num_steps")


def server_args_of(role: Role, spec: ModelSpec | None, server_args: Any, base_config: Any, tp_size: int) -> Any | None:
    """The arguments that a model is built with: what is read of them is this model's, not the base's.

    Args:
        role: which.
        spec: the small model's; None: it is the base.
        server_args: the server's.
        base_config: the base's `ModelConfig`; a small model serves the same context length.
        tp_size: the number of the model's ranks.

    Returns:
        A copy of `server_args` for this model; None where they are its own as they stand.
    """
    if spec is None:
        if tp_size == server_args.tp_size:
            return None
        arguments = copy.deepcopy(server_args)
        arguments.override(f"proxythinker.{role}", tp_size=tp_size)
        return arguments
    arguments = draft_server_args_copy(server_args, base_config)
    arguments.override(
        f"proxythinker.{role}",
        tp_size=tp_size,
        model_path=spec.path,
        # Not the base's, which is another repository's.
        revision=spec.options.revision,
        quantization=spec.options.quantization,
        dtype=spec.options.dtype or server_args.dtype,
        load_format=spec.options.load_format or server_args.load_format,
        # A small model reads token by token, or a chain that is handed to it.
        **dict.fromkeys(_OF_AN_ALGORITHM),
    )
    return arguments
