"""Match `stop_regex` in bounded time, and end a request whose end can't be decided with an error, alone.

Stock: decides after each token whether a request has ended: by length, stop strings, `stop_regex` with Python's `re`
       over its last tokens (all of them for `a*`), stop tokens. An exception ends the scheduler.
Ours:  the same but for `stop_regex`, which an automaton reads on (see stop_regex.py); an exception aborts this request.
Why a hook: it is called once for each request and token, and names `re` itself.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.schedule_batch:Req.update_finish_state",
    signature="(self, new_accepted_len=1)",
    why="a pattern such as (a+)+b would stop all requests for minutes",
    until="SGLang matches stop_regex in linear time and isolates a request's errors",
    checked={"0.5.17": "e77b51c7bca2"},
)


def around(original, req, new_accepted_len=1):
    patterns = req.sampling_params.stop_regex_strs
    try:
        if not patterns:
            return original(req, new_accepted_len)
        from sgl_proxythinker.guards.finish import update_with_stop_regex

        return update_with_stop_regex(original, req, new_accepted_len, patterns)
    except Exception as error:
        from sgl_proxythinker.guards.finish import abort

        abort(req, error)
