"""Look at each request once more before a scheduler sees it, and write down the strength that it resolved to.

Stock: turns one request, image already processed, into what is sent to the scheduler.
Ours:  the same, after which `custom_params` always carries both numbers; a prompt without a token is a 400.
Why a hook: every route, batch and `n` > 1 passes here once per request, and nothing upstream reads `custom_params`.
"""

from sgl_proxythinker.front import admit_tokenized
from sgl_proxythinker.patches._upstream import Upstream
from sgl_proxythinker.plugin import is_ours, proxy_config

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager._create_tokenized_object",
    signature="(self, obj, input_text, input_ids, input_embeds=None, mm_inputs=None, token_type_ids=None)",
    why="weights would not reach the schedulers, and prompt logprobs would be the base's in disguise",
    until="SGLang validates custom_params through a registry",
    checked={"0.5.17": "73bce132ae96"},
)


def around(original, manager, obj, *args, **kwargs):
    tokenized = original(manager, obj, *args, **kwargs)
    if is_ours(manager.server_args):
        admit_tokenized(obj, tokenized, proxy_config(manager.server_args))
    return tokenized
