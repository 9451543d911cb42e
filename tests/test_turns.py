"""Other requests have their turn between two prompts of a batch, which SGLang tokenizes one after the other."""

import asyncio
from types import SimpleNamespace

import pytest

from sgl_proxythinker.limits import Limits
from sgl_proxythinker.server import mark_as_ours

pytestmark = pytest.mark.usefixtures("sglang")


def test_a_batch_of_prompts_gives_others_their_turn(monkeypatch):
    """Kills: a stall as long as the tokenization of a thousand prompts, of which none suspends by itself."""
    from sgl_proxythinker.patches import tokenizer_manager_tokenize_one_request as hook

    monkeypatch.setattr(hook, "read_places", lambda manager, obj: None)
    manager = SimpleNamespace(server_args=SimpleNamespace())
    mark_as_ours(manager.server_args, None, None, Limits())
    prompt = SimpleNamespace(contains_mm_input=lambda: False)
    turns = 0

    async def tokenize(manager, obj):
        return turns

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def batch():
        beside = asyncio.create_task(others())
        seen = [await hook.around(tokenize, manager, prompt) for _ in range(5)]
        beside.cancel()
        return seen

    assert asyncio.run(batch()) == [1, 2, 3, 4, 5]
