"""Take a `stop_regex` in the syntax of our automaton, which Python's `re` may not know.

Stock: parses a pattern by Python's `re`, for how many tokens have to be decoded to find it at their end.
Ours:  0. `stop_regex` reads each new token once and looks back at none (`stop_regex.py`).
Why a hook: it runs inside of `SamplingParams.normalize`, and what it raises would be an internal error.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.sampling.sampling_params:get_max_seq_length",
    signature="(regex_str)",
    why="a pattern of the documented syntax would be a 500",
    until="SGLang has no regular expressions of its own for stop_regex",
    checked={"0.5.17": "84828fb7051e"},
)


def around(original, regex_str):
    return 0
