"""Read a JSON body once, and refuse what would be lost or would hurt before SGLang's own models see it.

Stock: parses the body of a request.
Ours:  the same; what was parsed is checked, wishes in the wrong place are refused, strengths in names are noted.
Why a hook: SGLang's models of bodies drop what they do not know, and several of its routes have no later place.
"""

from starlette.exceptions import HTTPException

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.metrics.refusals import noted
from sgl_proxythinker.requests.body import read_body
from sgl_proxythinker.requests.call import current
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.http_server:ORJSONRequest.json",
    signature="(self)",
    why="a strength in the wrong place would be lost without a word",
    until="SGLang lets a plugin check bodies",
    checked={"0.5.17": "b988cb4eb2ea"},
)


async def around(original, request):
    is_first = not hasattr(request, "_json")
    body = await original(request)
    server = getattr(request.app.state, "proxythinker", None)
    call = current()
    route = getattr(request.scope.get("route"), "path", None)
    if not is_first or server is None or call is None or route is None:
        return body
    try:
        with noted():
            request._json = read_body(route, body, call, server)
    except RequestError as error:
        # FastAPI hides every other exception behind "There was an error parsing the body".
        raise HTTPException(400, str(error)) from error
    return request._json
