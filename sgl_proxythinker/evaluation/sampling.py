"""How answers are drawn: greedy for pass@1, sampled for pass@k."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

# Left out, SGLang takes these of the model's generation_config.json: Qwen2.5-VL's has a repetition penalty of 1.05. The
# paper's scripts have none.
OF_SGLANG: dict[str, Any] = {"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0}


class Sampling(BaseModel):
    """Of all answers of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repeats: int = Field(ge=1)  # answers to each question
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    seed: int  # of the first repeat; a server with --enable-deterministic-inference draws the same again

    def seed_of(self, repeat: int) -> int | None:
        """None for greedy answers, which draw nothing."""
        return self.seed + repeat - 1 if self.temperature else None

    def generate_arguments(self, max_tokens: int) -> dict[str, Any]:
        """In inspect-ai's words."""
        drawn = {"top_p": self.top_p} if self.temperature else {}
        return {"temperature": self.temperature, "max_tokens": max_tokens, **drawn}

    def fields_of_sglang(self) -> dict[str, Any]:
        """What a request to SGLang says beside that.

        Other servers may refuse a request for fields that they don't know.
        """
        return OF_SGLANG | ({} if self.temperature else {"top_p": 1.0})

    def as_said(self, is_sglang: bool) -> dict[str, Any]:
        """What a manifest keeps: all that a request says of how its answer is drawn."""
        return self.model_dump() | (OF_SGLANG if is_sglang else {})
