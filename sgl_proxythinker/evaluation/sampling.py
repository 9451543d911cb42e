"""How answers are drawn: greedy for pass@1, sampled for pass@k."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


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
