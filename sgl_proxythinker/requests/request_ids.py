"""Request ids that end nobody else's request: each is made unique inside, and told to clients as they chose it.

SGLang's schedulers end every request whose id *begins* with the one that is to be ended, and a stream's late clean-up
ends by id whatever has that id then. So an id inside begins with 32 random digits that no other one begins with; what
a client chose follows them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import Any

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.requests.call import HttpCall
from sgl_proxythinker.sentences import shown

_INSIDE = re.compile(r"[0-9a-f]{32}:(.*)", re.DOTALL)
# What SGLang appends for each sample of n > 1.
_SAMPLE = re.compile(r"_[0-9a-f]{32}$")


def make_unique(rid: Any, live: Iterable[str]) -> Any:
    """The ids inside for those of a client: one, a list of them, or None, which SGLang fills with random ones.

    Args:
        rid: as it came, checked.
        live: ids inside of the requests that are under way.

    Raises:
        RequestError: a request that is under way has this id.
    """
    if rid is None:
        return None
    if isinstance(rid, list):
        if len(set(rid)) != len(rid):
            raise RequestError("rid has one id twice: send another one for each prompt, or leave it out.")
        taken = {told(other) for other in live}
        return [_unique(one, taken) for one in rid]
    return _unique(rid, {told(other) for other in live})


def told(inside: str) -> str:
    """What a client is told of an id inside: its own, where it chose one."""
    match = _INSIDE.fullmatch(inside)
    return match[1] if match else inside


def meant_by(rid: str, live: Iterable[str]) -> list[str]:
    """The ids inside that a client means which asks to end `rid`."""
    return [inside for inside in live if inside == rid or told(inside) == rid]


def _unique(rid: str, taken: set[str]) -> str:
    if rid in taken:
        raise RequestError(f"rid {shown(rid)} is that of a request that is still under way: choose another, or none.")
    return f"{uuid.uuid4().hex}:{rid}"


def tell_ids(output: Any, has_samples: bool, call: HttpCall | None) -> Any:
    """An output, or a batch of them, with the ids that its client knows in `meta_info`.

    Args:
        output: as `TokenizerManager.generate_request` yields it; a dict may be used by SGLang again, so it is copied.
        has_samples: `n` is more than 1; all samples of a prompt are told with its id.
        call: the HTTP request; answers in OpenAI's form have one id, however many prompts and samples they have.
    """
    if isinstance(output, list):
        return [tell_ids(one, has_samples, call) for one in output]
    if not isinstance(output, dict) or "id" not in output.get("meta_info", ()):
        return output
    inside = output["meta_info"]["id"]
    rid = told(_SAMPLE.sub("", inside) if has_samples else inside)
    if call is not None and call.speaks_openai:
        call.answer_id = rid = call.answer_id or rid
    return {**output, "meta_info": {**output["meta_info"], "id": rid}}
