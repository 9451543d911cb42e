"""Joined, the bytes of a chat's logprobs are the bytes of its text, though most tokens are a part of a character."""

import json

import pytest

TEXT = "😀中é"
MESSAGES = [{"role": "user", "content": "Hi"}]


def body(alpha, **options):
    return {
        "model": "m", "temperature": 0, "max_tokens": 16, "regex": TEXT, "custom_params": {"proxy_alpha": alpha},
        **options,
    }  # fmt: skip


def joined(tokens):
    return b"".join(bytes(token["bytes"]) for token in tokens)


def check_server(server, alpha):
    chat = body(alpha, messages=MESSAGES, logprobs=True, top_logprobs=3)
    choice = server.post("/v1/chat/completions", chat).json()["choices"][0]
    tokens = choice["logprobs"]["content"]
    assert choice["message"]["content"] == TEXT
    assert joined(tokens) == TEXT.encode() + b"<|im_end|>"
    for token in tokens:
        assert token["top_logprobs"][0]["bytes"] == token["bytes"], "the one that the grammar allows"
        assert len({json.dumps(top["bytes"]) for top in token["top_logprobs"]}) == 3
    assert tokens[0]["token"] == "bytes:\\xf0"

    stream = server.post("/v1/chat/completions", {**chat, "stream": True}, stream=True)
    chunks = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith(b"data: {")]
    told = [
        token
        for chunk in chunks
        for choice in chunk["choices"]
        for token in (choice["logprobs"] or {"content": []})["content"]
    ]
    # The end has no text. SGLang sends no chunk for it alone; where a host is slow, it is told with the last text.
    assert joined(told) in (TEXT.encode(), TEXT.encode() + b"<|im_end|>")
    assert told == tokens[: len(told)], "as in the whole answer"

    choice = server.post("/v1/completions", body(alpha, prompt="Hi", logprobs=3)).json()["choices"][0]
    assert choice["text"] == TEXT
    parts = [token.removeprefix("bytes:").encode().decode("unicode_escape") for token in choice["logprobs"]["tokens"]]
    assert "".join(parts).encode("latin-1") == TEXT.encode() + b"<|im_end|>"
    assert all(len(top) == 3 for top in choice["logprobs"]["top_logprobs"])


@pytest.mark.xdist_group("guided")
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_guided(guided, alpha):
    check_server(guided, alpha)


@pytest.mark.xdist_group("plain")
def test_plain(plain):
    check_server(plain, 0.0)


@pytest.mark.xdist_group("guided")
def test_without_a_grammar(guided):
    """Drawn tokens: text and bytes agree where the text has no replaced bytes, and streams tell every token."""
    chat = body(0.5, messages=MESSAGES, logprobs=True, top_logprobs=2, temperature=1.5, max_tokens=40)
    del chat["regex"]
    chat["skip_special_tokens"] = False  # one may be drawn, and has bytes
    choice = guided.post("/v1/chat/completions", {**chat, "ignore_eos": True}).json()["choices"][0]
    data = joined(choice["logprobs"]["content"])
    assert data.decode(errors="replace").startswith(choice["message"]["content"])
    stream = guided.post("/v1/chat/completions", {**chat, "ignore_eos": True, "stream": True}, stream=True)
    chunks = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith(b"data: {")]
    told = [
        token
        for chunk in chunks
        for choice in chunk["choices"]
        for token in (choice["logprobs"] or {"content": []})["content"]
    ]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert len(told) == 40 and joined(told).decode(errors="replace").startswith(text)
