"""Say in every response's `meta_info` which strength made it; give a trace to requests that ask, and to no other.

Stock: yields the outputs of one request.
Ours:  the same outputs, with `proxy_alpha` and `proxy_amateur_alpha` in their `meta_info`, and `proxy_trace` as one
       object of lists. That a scheduler has refused it is noted, for the metrics.
Why a hook: `customized_info`, upstream's place for such things, is a list with an element per token, and every
request of a batch gets it.
"""

from sgl_proxythinker.metrics.refusals import note
from sgl_proxythinker.requests.tokenized import annotate
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager._wait_one_response",
    signature="(self, obj, request=None)",
    why="a response would not say whether it was guided",
    until="SGLang lets a plugin add per-request fields to meta_info",
    checked={"0.5.17": "5ceeb481dae6"},
)


async def around(original, manager, obj, request=None):
    try:
        async for output in original(manager, obj, request):
            yield annotate(obj, output, manager.incremental_streaming_output)
    except ValueError:  # SGLang makes one of what a scheduler answers with 400
        note("scheduler")
        raise
