"""SGLang's handler of Ollama's streams writes all of the text, and no end where there was an error."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from starlette.exceptions import HTTPException

from sgl_proxythinker.http.ollama import OllamaStream

pytestmark = pytest.mark.usefixtures("sglang")  # compared with, or needed by what is tested


def part(text, reason=None):
    return {"text": text, "meta_info": {"finish_reason": reason}}


def lines(outputs, is_incremental):
    """What SGLang's own handler makes of them."""
    serving = pytest.importorskip("sglang.srt.entrypoints.ollama.serving")
    stream = OllamaStream(is_incremental)

    async def generate_request(obj, request):
        for output in outputs:
            for each in stream.parts(output):
                yield each

    manager = SimpleNamespace(generate_request=generate_request)

    async def read():
        response = await serving.OllamaServing(manager)._stream_generate_response(None, None, "m")
        return [json.loads(line) async for line in response.body_iterator]

    return asyncio.run(read())


@pytest.mark.parametrize(("texts", "is_incremental"), [(["a", "ab", "abc"], False), (["a", "b", "c"], True)])
def test_the_lines_have_all_of_the_text_and_one_end(texts, is_incremental):
    outputs = [*map(part, texts[:-1]), part(texts[-1], {"type": "stop"})]
    told = lines(outputs, is_incremental)
    assert "".join(line["response"] for line in told) == "abc"
    assert [line["done"] for line in told] == [False, False, False, True]


@pytest.mark.parametrize(("reason", "status"), [({"status_code": 400, "message": "It is wrong."}, 400), ({}, 500)])
def test_an_error_is_no_end(reason, status):
    with pytest.raises(HTTPException) as error:
        lines([part("a"), part("ab", {"type": "abort", **reason})], False)
    assert error.value.status_code == status and error.value.detail
