"""Our algorithm in SGLang's registry of speculative decoding: what the scheduler asks of it.

Every `is_...` is left False: SGLang's own algorithms mean by them a draft model that shares the base's hidden states,
keys of the radix tree made of two tokens, or layers of a draft in the base's pool.
"""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.upstream.speculation import CustomSpecAlgo, SpeculativeAlgorithm, get_spec

NAME = "PROXYTHINKER"


class GuidedAlgorithm(CustomSpecAlgo):
    """Chains of drafts by a model of the roster."""

    def create_future_map(
        self, device: Any, pool: Any, needs_cpu_seq_lens: bool = True, needs_confidence_relay: bool = False
    ) -> Any:
        from sgl_proxythinker.speculation.relay import TokenRelay

        return TokenRelay(device, self, pool, needs_cpu_seq_lens, needs_confidence_relay)

    def need_topk(self) -> bool:
        return False

    def carries_draft_hidden_states(self) -> bool:
        return False

    def supports_target_verify_for_draft(self) -> bool:
        """The amateur, a draft worker to SGLang, reads chains too."""
        return True


def register() -> None:
    """Make the algorithm's name known in this process, once. Every process that resolves it needs it."""
    if get_spec(NAME) is not None:
        return

    @SpeculativeAlgorithm.register(NAME, supports_overlap=True, spec_class=GuidedAlgorithm)
    def worker_class(server_args: Any) -> type:
        from sgl_proxythinker.speculation.worker import SpeculativeWorker

        return SpeculativeWorker


def arguments_for(drafts: int) -> dict[str, Any]:
    """SGLang's arguments of a server that reads chains of this many drafts.

    They are set once SGLang has resolved its own: with them it would choose other kernels for the base.
    """
    return {
        "speculative_algorithm": NAME,
        "speculative_eagle_topk": 1,
        "speculative_num_steps": drafts,
        "speculative_num_draft_tokens": drafts + 1,
    }


def most_running(server_args: Any) -> int | None:
    """How many requests may run at once where each step writes ahead; None: as was asked for, or as SGLang says.

    Rows of chains of a larger batch are in no plan. (With `auto` such a batch is not drafted for.) SGLang limits what
    runs with its own drafts too.

    Args:
        server_args: SGLang's, resolved.
    """
    if server_args.device == "cpu" or server_args.max_running_requests is not None:
        return None
    captured: int = server_args.cuda_graph_config.decode.max_bs
    return captured
