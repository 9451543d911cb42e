"""The response header that says how an answer was guided: the one place that every route and every stream has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby

from sgl_proxythinker.guidance import Guidance

NAME = "proxy-guidance"

_MOST_BYTES = 4096  # clients and proxies drop headers that are much longer


def guidance_header(guidances: Sequence[Guidance]) -> str:
    """The header's value: JSON, the same names and numbers as in `meta_info`.

    Args:
        guidances: of each prompt of the request, in its order.

    Returns:
        An object for one prompt, a list of them for several. Neighbours that are alike are one entry with their number
        as `prompts`; where that is still too long for a header, the list is empty and `meta_info` has it alone.
    """
    if len(guidances) == 1:
        return json.dumps(guidances[0].as_params())
    told = [guidance.as_params() for guidance in guidances]
    alike = [(params, len(list(group))) for params, group in groupby(told)]
    value = json.dumps([params | ({"prompts": prompts} if prompts > 1 else {}) for params, prompts in alike])
    return value if len(value) <= _MOST_BYTES else "[]"
