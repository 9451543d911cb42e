"""What SGLang's overlap of scheduling and computing hands from one cycle to the next on the device."""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.upstream.speculation import FutureMap


class TokenRelay(FutureMap):
    """Upstream's, for cycles that leave a token of each request and nothing else.

    Upstream's marks the rows that it reads as used by the current stream, which tensors of a CPU know nothing of; the
    scheduler keeps them for two steps in any case.
    """

    def _resolve_spec_extras(self, batch: Any) -> None:
        pending = batch.spec_info
        if pending is not None:
            pending.bonus_tokens = self.output_tokens_buf[pending.future_indices]
