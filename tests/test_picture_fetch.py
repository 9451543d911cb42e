"""Downloads for clients are bounded: bytes, time, redirects, number, and the addresses that are connected to."""

import asyncio
import gzip
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.pictures import fetch as module
from sgl_proxythinker.pictures.fetch import Downloads

BODY = b"picture" * 1000


async def picture(request):
    return web.Response(body=BODY)


async def status(request):
    return web.Response(status=int(request.match_info["code"]))


async def endless(request):
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65536)


async def slow(request):
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.05)


async def silent(request):
    await asyncio.sleep(3600)


async def redirect(request):
    left = int(request.match_info["left"])
    raise web.HTTPFound(f"/redirect/{left - 1}" if left else "/picture")


async def elsewhere(request):
    raise web.HTTPFound(request.query["to"])


async def packed(request):
    return web.Response(body=gzip.compress(b"x" * 10_000_000), headers={"Content-Encoding": "gzip"})


async def headers(request):
    return web.json_response(dict(request.headers))


async def crumbs(request):
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0)


ROUTES = {
    "crumbs": crumbs,
    "picture": picture,
    "status/{code}": status,
    "endless": endless,
    "slow": slow,
    "silent": silent,
    "redirect/{left}": redirect,
    "elsewhere": elsewhere,
    "packed": packed,
    "headers": headers,
}


@pytest.fixture
def host():
    """Run a coroutine function beside a server of files: gets its address, and the event loop of both."""

    def run(work):
        async def both():
            app = web.Application()
            for name, handler in ROUTES.items():
                app.router.add_get(f"/{name}", handler)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                return await work(f"http://127.0.0.1:{runner.addresses[0][1]}")
            finally:
                await runner.cleanup()

        return asyncio.run(both())

    return run


def downloads(**changes) -> Downloads:
    return Downloads(**{"max_bytes": 1 << 20, "timeout_s": 20, "redirects": 3, "at_once": 4, "private": True} | changes)


def refusal(host, path: str, **changes) -> str:
    async def work(url):
        with pytest.raises(RequestError) as refused:
            await downloads(**changes).fetch(url + path if path.startswith("/") else path, "image 2")
        return str(refused.value)

    sentence = host(work)
    assert sentence.startswith("image 2 ") and len(sentence) < 250
    return sentence


def test_a_picture_is_downloaded(host):
    assert host(lambda url: downloads().fetch(url + "/picture", "the image")) == BODY


def test_a_host_that_sends_a_few_bytes_at_a_time_is_left(host, monkeypatch):
    monkeypatch.setattr(module, "_FEW_PIECES", 50)
    assert "in pieces of a few bytes" in refusal(host, "/crumbs")


def test_redirects_are_followed_up_to_a_number(host):
    assert host(lambda url: downloads().fetch(url + "/redirect/2", "the image")) == BODY
    assert "redirected more than 3 times" in refusal(host, "/redirect/3")
    assert "redirected more than 0 times" in refusal(host, "/redirect/0", redirects=0)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://a.example/x", "data:,x", "gopher://127.0.0.1/"])
def test_a_redirect_leads_to_http_only(host, to):
    assert "redirected to something else" in refusal(host, f"/elsewhere?to={to}")


def test_bytes_are_bounded(host):
    assert "longer than the 1 MiB" in refusal(host, "/endless")
    assert "longer than" in refusal(host, "/picture", max_bytes=len(BODY) - 1)


def test_a_compressed_body_can_not_grow(host):
    assert "compresses it" in refusal(host, "/packed")


@pytest.mark.parametrize("path", ["/slow", "/silent"])
def test_the_time_of_the_whole_download_is_bounded(host, path):
    assert "within 0.5 s" in refusal(host, path, timeout_s=0.5)


def test_waiting_for_a_turn_counts_and_ends(host):
    """One that hangs holds its turn no longer than its time, and the next one is served."""

    async def work(url):
        fetch = downloads(at_once=1, timeout_s=4.0).fetch
        first = asyncio.create_task(fetch(url + "/silent", "image 1"))
        await asyncio.sleep(2.0)
        second = asyncio.create_task(fetch(url + "/picture", "image 2"))
        done = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(done[0], RequestError)
        return done[1]

    assert host(work) == BODY


@pytest.mark.parametrize("code", [404, 500, 204])
def test_an_answer_that_is_no_picture(host, code):
    assert f"answers {code}" in refusal(host, f"/status/{code}")


def test_nobody_listens(host):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert "does not answer" in refusal(host, f"http://127.0.0.1:{free.getsockname()[1]}/x.png")


def test_nothing_of_the_environment_is_sent_or_used(host, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    sent = host(lambda url: downloads().fetch(url + "/headers", "the image"))
    assert b"Authorization" not in sent and b"Host" in sent


class TestPrivateAddresses:
    """The server behind `host` is on this machine: it can be reached by none of these names, and by no redirect."""

    ONE_SENTENCE = "--proxy-image-url-private"

    @pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "0.0.0.0",
                                      "[::1]", "[::ffff:127.0.0.1]"])  # fmt: skip
    def test_names_of_this_host(self, host, name):
        async def work(url):
            port = url.rpartition(":")[2]
            with pytest.raises(RequestError) as refused:
                await downloads(private=False).fetch(f"http://{name}:{port}/picture", "the image")
            return str(refused.value)

        sentence = host(work)
        # A number in place of four is no address to the HTTP client, whatever the system makes of it.
        assert self.ONE_SENTENCE in sentence or (name[0].isdigit() and "no valid http(s) URL" in sentence)
        assert "127" not in sentence

    def test_a_name_that_does_not_exist_gets_the_same_sentence(self, host):
        """Nobody learns which names there are in a private network."""
        assert self.ONE_SENTENCE in refusal(host, "http://no-such-host.invalid/x.png", private=False)

    def test_an_address_is_checked_when_it_is_connected_to(self, host, monkeypatch):
        """A name that is public when it is first looked up, and this host's at the next time (DNS rebinding)."""
        answers = iter([True, False, False])
        asked = []
        monkeypatch.setattr(module, "is_public", lambda address: asked.append(address) or next(answers))

        async def work(url):
            fetch = downloads(private=False).fetch
            port = url.rpartition(":")[2]
            with pytest.raises(RequestError, match=self.ONE_SENTENCE):
                await fetch(f"http://127.0.0.1:{port}/elsewhere?to=http://localhost:{port}/picture", "the image")

        host(work)
        assert asked[0] == "127.0.0.1" and len(asked) >= 2, "at the redirect the new address is checked"

    def test_names_are_looked_up_by_threads_of_their_own(self, monkeypatch):
        """A resolver that hangs holds up none of SGLang's threads."""
        used = []
        monkeypatch.setattr(
            ThreadPoolExecutor, "submit",
            lambda pool, *args, _submit=ThreadPoolExecutor.submit, **kw: used.append(pool._thread_name_prefix)
            or _submit(pool, *args, **kw),
        )  # fmt: skip

        async def work():
            with pytest.raises(RequestError):
                await downloads(private=False).fetch("http://no-such-host.invalid/x.png", "the image")

        asyncio.run(work())
        assert used == ["proxythinker-names"]


@pytest.mark.parametrize(
    "url", ["http://", "http:///x.png", "http://[::1/x", "http://a b/x", "http://a.example:99999/"]
)
def test_what_is_no_url(url):
    with pytest.raises(RequestError, match="no valid|can't be downloaded"):
        asyncio.run(downloads().fetch(url, "the image"))
