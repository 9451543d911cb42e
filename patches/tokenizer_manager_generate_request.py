"""Check every field of a request before SGLang reads one, and tell clients the ids that they chose.

Stock: the one door of all routes and of the offline engine: normalises the request, tokenizes it, sends it to the
       schedulers, yields its outputs. What it does not check, a scheduler dies of.
Ours:  the same, after types and ranges are checked, its id is made unique, its strength is known, and its grammar was
       tried in a process of its own; outputs carry the id that the client chose, the same one in all parts of an
       answer in OpenAI's form; the end of a stream in Ollama's form keeps its text. With --enable-metrics its
       strengths, or the kind of its refusal, are counted.
Why a hook: upstream has no registry of checks, and a refusal has to come before anything is done for the request.
"""

from contextlib import aclosing

from sgl_proxythinker.http import ollama
from sgl_proxythinker.metrics.refusals import noted
from sgl_proxythinker.metrics.requests import request_metrics
from sgl_proxythinker.policy.bounds import bounds_of
from sgl_proxythinker.requests.admission import admit_request, check_fields, refuse_unread_markers
from sgl_proxythinker.requests.call import current
from sgl_proxythinker.requests.grammar_trial import trial_of, try_grammars
from sgl_proxythinker.requests.request_ids import tell_ids
from sgl_proxythinker.server import is_ours, proxy_config
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager.generate_request",
    signature="(self, obj, request=None)",
    why="a field that a scheduler can't read would end the server, and an id would end another client's request",
    until="SGLang checks what comes in by one declared model, and compares ids as a whole",
    checked={"0.5.17": "d8eaa29a7e74"},
)

# SGLang's own requests for its health: nobody outside can set both.
_HEALTH = "HEALTH_CHECK"


async def around(original, manager, obj, request=None):
    server_args = manager.server_args
    if not is_ours(server_args) or not hasattr(obj, "return_logprob") or _is_health_check(obj):
        async with aclosing(original(manager, obj, request)) as outputs:
            async for output in outputs:
                yield output
        return
    with noted():
        async with aclosing(_checked(original, manager, obj, request)) as outputs:
            async for output in outputs:
                yield output


async def _checked(original, manager, obj, request):
    server_args = manager.server_args
    call, config = current(), proxy_config(server_args)
    try:
        check_fields(obj, bounds_of(manager), config, call)
        await try_grammars(obj.sampling_params, trial_of(manager))
        # Nothing is awaited from here until SGLang has noted the id, so no other request can take it.
        live = manager.rid_to_state.keys() | manager.logical_rid_to_child_rids.keys()
        guidances = admit_request(obj, config, call, live, manager.server_status.name == "Starting")
        refuse_unread_markers(obj, manager.tokenizer)
    except BaseException:
        # SGLang's clean-up after a stream ends by id, 2 s later, whatever has this id then.
        obj.rid, obj.is_single = [], False
        raise
    if (metrics := request_metrics(manager)) is not None:
        metrics.admitted(guidances)
    in_ollamas_form = obj.stream and call is not None and call.path == ollama.ROUTE
    stream = ollama.OllamaStream(server_args.incremental_streaming_output) if in_ollamas_form else None
    async with aclosing(original(manager, obj, request)) as outputs:
        async for output in outputs:
            output = tell_ids(output, getattr(obj, "parallel_sample_num", 1) > 1, call)
            for part in (output,) if stream is None else stream.parts(output):
                yield part


def _is_health_check(obj):
    return isinstance(obj.rid, str) and obj.rid.startswith(_HEALTH) and obj.log_metrics is False
