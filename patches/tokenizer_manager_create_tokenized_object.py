"""Look at each request once more before a scheduler sees it, and write down what it asks of guidance.

Stock: turns one request, image already processed, into what is sent to the scheduler. The scheduler will make the keys
       of its images: hashes of their patches, without shape and cut to 30 bits.
Ours:  the same, after which `custom_params` always carries its guidance in canonical form, and the images have keys of
       ours; a prompt without a token is a 400.
Why a hook: every route, batch and `n` > 1 passes here once per request, and nothing upstream reads `custom_params`.
"""

from sgl_proxythinker.pictures.request import give_keys
from sgl_proxythinker.requests.tokenized import admit_tokenized
from sgl_proxythinker.server import is_ours, proxy_config
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager._create_tokenized_object",
    signature="(self, obj, input_text, input_ids, input_embeds=None, mm_inputs=None, token_type_ids=None)",
    why="weights would not reach the schedulers, and prompt logprobs would be the base's in disguise",
    until="SGLang validates custom_params through a registry",
    checked={"0.5.17": "73bce132ae96"},
)


def around(original, manager, obj, input_text, input_ids, input_embeds=None, mm_inputs=None, token_type_ids=None):
    if is_ours(manager.server_args) and mm_inputs is not None:
        give_keys(manager, obj, mm_inputs)
    tokenized = original(manager, obj, input_text, input_ids, input_embeds, mm_inputs, token_type_ids)
    if is_ours(manager.server_args):
        admit_tokenized(obj, tokenized, proxy_config(manager.server_args))
    return tokenized
