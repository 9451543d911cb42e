"""Look at every prompt of a batch as at a single one.

Stock: a batch of ids without images is taken as a whole, past the function where requests are checked.
Ours:  one after the other, as batches of texts are. Ids need no tokenizer, so nothing is lost by it.
Why a hook: the batch as a whole passes no other hook of ours before it is sent.
"""

from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager._should_use_batch_tokenization",
    signature="(self, batch_size, requests)",
    why="ids of a batch would not be checked: unknown ones, and places for images that did not come",
    until="SGLang calls _tokenize_one_request for each prompt",
    checked={"0.5.17": "f64ec7a15bf3"},
)


def around(original, manager, batch_size, requests):
    return False if is_ours(manager.server_args) else original(manager, batch_size, requests)
