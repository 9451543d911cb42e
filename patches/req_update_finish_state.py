"""Match `stop_regex` in bounded time, and end a request whose end can't be decided with an error, alone.

Stock: decides after each step whether a request has ended: by length, stop strings, `stop_regex` with Python's `re`
       over its last tokens (all of them for `a*`), stop tokens. An exception ends the scheduler.
Ours:  the same but for `stop_regex`, which an automaton reads on (see stop_regex.py); an exception aborts this request;
       and after each token of a chain that speculation brought.
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
    from sgl_proxythinker.guards.chain_end import update_token_by_token

    def update():
        _update(original, req)

    try:
        if new_accepted_len > 1 and not req.finished():
            update_token_by_token(update, req, new_accepted_len)
        else:
            update()
    except Exception as error:
        from sgl_proxythinker.guards.finish import abort

        abort(req, error)


def _update(original, req):
    """After one token."""
    if not (patterns := req.sampling_params.stop_regex_strs):
        original(req, 1)
        return
    from sgl_proxythinker.guards.finish import update_with_stop_regex

    update_with_stop_regex(original, req, 1, patterns)
