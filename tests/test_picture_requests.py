"""Pictures on real servers: seen as the oracle sees them, never answered from another's cache, refused in a word."""

import io
import os
import time

import numpy as np
import openai
import pytest
import requests
from PIL import Image

from cases import ROUNDING, logprob_tolerance
from servers import chat_messages
from sgl_proxythinker.programs.pictures import data_url, random_picture

pytestmark = pytest.mark.xdist_group("guided")

PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
WHAT = PLACE + "What?"
BOTH = pytest.mark.parametrize("alpha", [0.5, 0.0])


def greedy(alpha: float, **changes) -> dict:
    return {
        "temperature": 0,
        "max_new_tokens": 6,
        "ignore_eos": True,
        "custom_params": {"proxy_alpha": alpha},
        **changes,
    }


def ask(server, text: str, images, alpha: float = 0.5, **fields) -> dict:
    body = {"text": text, "image_data": images, "return_logprob": True, "sampling_params": greedy(alpha), **fields}
    return server.generate(**body)


def refused(server, **body) -> str:
    """The sentence of a request that must be a 400, soon."""
    started = time.monotonic()
    response = requests.post(server.url + "/generate", json={"sampling_params": greedy(0.0), **body}, timeout=120)
    assert response.status_code == 400, response.text[:300]
    assert time.monotonic() - started < 60 and len(response.text) < 1000
    return response.text


def logprobs(answer: dict) -> list[float]:
    return [logprob for logprob, _, _ in answer["meta_info"]["output_token_logprobs"]]


def assert_same(one: dict, other: dict, alpha: float) -> None:
    assert one["output_ids"] == other["output_ids"]
    assert np.abs(np.subtract(logprobs(one), logprobs(other))).max() < 2 * logprob_tolerance(alpha)


def png(width: int, height: int, colour: str) -> str:
    return data_url(Image.new("RGB", (width, height), colour))


class TestKeys:
    """No picture is answered from the cache of another one."""

    @BOTH
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ((56, 112, "red"), (112, 56, "red")),
            ((112, 56, "red"), (56, 112, "red")),
            ((28, 280, "white"), (280, 28, "white")),
            ((112, 168, "white"), (168, 112, "white")),
            ((112, 224, "blue"), (112, 225, "blue")),
        ],
    )
    def test_the_same_colour_in_another_shape(self, guided, alpha, first, second):
        guided.flush_cache()
        alone = ask(guided, WHAT, png(*second), alpha)
        guided.flush_cache()
        ask(guided, WHAT, png(*first), alpha)
        after = ask(guided, WHAT, png(*second), alpha)
        assert after["meta_info"]["cached_tokens"] <= 1, "no more than what stands before the picture"
        assert_same(after, alone, alpha)

    @BOTH
    def test_the_order_of_two(self, guided, alpha):
        wide, tall = png(112, 56, "red"), png(56, 112, "red")
        text = f"{PLACE}and{WHAT}"
        guided.flush_cache()
        alone = ask(guided, text, [tall, wide], alpha)
        guided.flush_cache()
        ask(guided, text, [wide, tall], alpha)
        after = ask(guided, text, [tall, wide], alpha)
        assert after["meta_info"]["cached_tokens"] <= 1
        assert_same(after, alone, alpha)

    @BOTH
    def test_a_picture_that_comes_again_is_cached(self, guided, alpha, tmp_path):
        """As a data URL or as bare base64, alone and in a batch and with n > 1."""
        url = data_url(random_picture(401, 112, 56), "JPEG")
        first = ask(guided, WHAT, url, alpha)
        prompt = first["meta_info"]["prompt_tokens"]
        assert first["meta_info"]["cached_tokens"] <= 1
        for images in (url, [url], [[url]], url.partition(",")[2]):
            again = ask(guided, WHAT, images, alpha)
            assert again["meta_info"]["cached_tokens"] == prompt - 1
            assert again["output_ids"] == first["output_ids"]
        for answer in guided.generate(text=[WHAT, WHAT], image_data=[[url], [url]], sampling_params=greedy(alpha)):
            assert answer["output_ids"] == first["output_ids"]
        for answer in ask(guided, WHAT, [url], alpha, sampling_params=greedy(alpha, n=2)):
            assert answer["output_ids"] == first["output_ids"]

    @pytest.mark.parametrize("hashes", [["00ff"], [["00ff"]], ["zz"]])
    def test_hashes_from_outside_are_refused(self, guided, plain, hashes):
        for server in (guided, plain):
            assert "mm_hashes can't be sent" in refused(
                server, text=WHAT, image_data=png(56, 56, "red"), mm_hashes=hashes
            )
            assert "mm_hashes can't be sent" in refused(
                server, text=[WHAT, "x"], image_data=[[png(56, 56, "red")], None], mm_hashes=hashes
            )

    def test_logprobs_of_a_prompt_with_a_picture(self, guided):
        """Ids of pictures are numbers of 62 bits, which no tokenizer knows."""
        answer = ask(guided, WHAT, png(56, 56, "red"), 0.0, logprob_start_len=0, return_text_in_logprobs=True)
        assert len(answer["meta_info"]["input_token_logprobs"]) == answer["meta_info"]["prompt_tokens"]


def ramp() -> np.ndarray:
    return np.tile(np.linspace(300, 65535, 84), (84, 1))


def file_url(picture: Image.Image, form: str, **options) -> str:
    return data_url(picture, form, **options)


class TestSeen:
    """Server, oracle and twin agree by logprobs."""

    def twins(self):
        turned = Image.Exif()
        turned[0x112] = 6
        lying = random_picture(17, 112, 56)
        clear = Image.new("RGBA", (84, 84), (0, 0, 0, 0))
        deep = Image.fromarray(ramp().astype("uint16"))
        grey = Image.fromarray(np.rint(ramp() / 257).astype(np.uint8))
        cmyk = random_picture(18).convert("CMYK")
        return [
            (file_url(lying, "PNG", exif=turned), lying.transpose(Image.Transpose.ROTATE_270)),
            (file_url(clear, "PNG"), Image.new("RGB", (84, 84), "white")),
            (file_url(deep, "PNG"), grey.convert("RGB")),
            (file_url(cmyk, "TIFF"), cmyk.convert("RGB")),
        ]

    @BOTH
    def test_as_a_person_sees_it(self, guided, reference, alpha):
        for url, twin in self.twins():
            served = ask(guided, WHAT, url, alpha)
            of_twin = ask(guided, WHAT, data_url(twin), alpha)
            assert_same(served, of_twin, alpha)
            expected = reference.generate(WHAT, [twin], alpha=alpha, max_new_tokens=6, stop_at_eos=False)
            if served["output_ids"] == expected.token_ids:
                assert np.abs(np.subtract(logprobs(served), expected.logprobs)).max() < 10 * logprob_tolerance(alpha)
            assert served["meta_info"]["prompt_tokens"] == len(expected.input_ids)

    def test_the_oracle_sees_a_file_as_the_server_does(self, guided, reference):
        exif = Image.Exif()
        exif[0x112] = 8
        buffer = io.BytesIO()
        random_picture(19, 140, 56).save(buffer, "PNG", exif=exif)
        picture = Image.open(io.BytesIO(buffer.getvalue()))
        expected = reference.generate(WHAT, [picture], alpha=0.5, max_new_tokens=6, stop_at_eos=False)
        served = ask(guided, WHAT, data_url(random_picture(19, 140, 56), "PNG", exif=exif))
        assert served["output_ids"] == expected.token_ids or ROUNDING > 1e-3
        if ROUNDING <= 1e-3:
            assert np.abs(np.subtract(logprobs(served), expected.logprobs)).max() < logprob_tolerance(0.5)


class TestPlaces:
    def test_an_expanded_place_is_answered(self, guided, plain):
        url = data_url(random_picture(402, 56, 56))
        for server in (guided, plain):
            single = ask(server, WHAT, url, 0.0)
            for count in (2, 4, 9):
                text = WHAT.replace("<|image_pad|>", "<|image_pad|>" * count)
                assert ask(server, text, [url], 0.0)["output_ids"] == single["output_ids"]
                ids = server.post("/tokenize", {"prompt": text}).json()["tokens"]
                body = {"input_ids": ids, "image_data": [url], "sampling_params": greedy(0.0)}
                assert server.generate(**body)["output_ids"] == single["output_ids"]

    @pytest.mark.parametrize(
        ("body", "both"),
        [
            ({"text": "What?", "image_data": ["P"]}, "0 places for images, and 1 image "),
            ({"text": WHAT, "image_data": ["P", "P"]}, "1 place for images, and 2 images"),
            ({"text": PLACE + WHAT, "image_data": ["P"]}, "2 places for images, and 1 image "),
            ({"text": PLACE + WHAT, "image_data": [["P", "P", "P"]]}, "2 places for images, and 3 images"),
            ({"text": WHAT}, "1 place for images, and 0 images"),
            ({"text": [WHAT, "Hi"], "image_data": [["P"], ["P"]]}, "0 places for images, and 1 image "),
            ({"text": [WHAT, WHAT], "image_data": [["P"], None]}, "1 place for images, and 0 images"),
            ({"input_ids": [40, 41], "image_data": ["P"]}, "0 places for images, and 1 image "),
            ({"text": WHAT, "image_data": [["P"], ["P"]]}, "has 2 rows, and there is 1 prompt"),
            ({"text": WHAT + "<|video_pad|>", "image_data": ["P"]}, "<|video_pad|> beside an image"),
        ],
        ids=lambda value: str(value)[-30:],
    )
    def test_numbers_that_do_not_agree(self, guided, plain, body, both):
        url = png(56, 56, "red")

        def filled(value):
            return [filled(entry) for entry in value] if isinstance(value, list) else url if value == "P" else value

        for server in (guided, plain):
            assert both in refused(server, **{**body, **{"image_data": filled(body.get("image_data"))}})

    def test_ids_in_a_batch(self, guided):
        ids = guided.post("/tokenize", {"prompt": WHAT}).json()["tokens"]
        assert "1 place for images, and 0 images" in refused(guided, input_ids=[[40, 41], ids])
        assert "it has 100000" in refused(guided, input_ids=[[40, 41], [100_000]])

    def test_a_chat_that_brings_its_ids_brings_its_pictures(self, guided):
        url = data_url(random_picture(403, 56, 56))
        messages = chat_messages("", [random_picture(403, 56, 56)])
        ids = guided.post("/tokenize", {"prompt": WHAT}).json()["tokens"]
        answer = guided.chat(messages, 0.5, extra_body={"input_ids": ids}, max_tokens=6, logprobs=True)
        expected = ask(guided, WHAT, url)
        assert answer["usage"]["prompt_tokens"] == expected["meta_info"]["prompt_tokens"]
        got = [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]]
        assert np.abs(np.subtract(got, logprobs(expected)[: len(got)])).max() < 2 * logprob_tolerance(0.5)
        with pytest.raises(openai.BadRequestError, match="0 places for images, and 1 image "):
            guided.chat(messages, 0.5, extra_body={"input_ids": [40, 41]})

    def test_a_chat_whose_text_has_a_place(self, guided):
        with pytest.raises(openai.BadRequestError, match="2 places for images, and 1 image "):
            guided.chat(chat_messages(PLACE, [random_picture(1)]))
        with pytest.raises(openai.BadRequestError, match="1 place for images, and 0 images"):
            guided.chat(chat_messages(PLACE))
        assert guided.chat(chat_messages("What does <|image_pad|> mean?"))["choices"]

    @pytest.mark.parametrize("n", [1, 2])
    def test_two_pictures_flat_or_nested(self, guided, n):
        urls, text = [data_url(random_picture(seed)) for seed in (404, 405)], f"{PLACE}and{WHAT}"
        answers = [ask(guided, text, images, sampling_params=greedy(0.5, n=n)) for images in (urls, [urls])]
        answers = [answer for one in answers for answer in (one if n > 1 else [one])]
        assert len({tuple(answer["output_ids"]) for answer in answers}) == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ("/etc/passwd", "--proxy-image-folder"),
            ("/no/such/file.png", "--proxy-image-folder"),
            ("file:///etc/passwd", "--proxy-image-folder"),
            ("/dev/zero", "--proxy-image-folder"),
            ("http://127.0.0.1:1/x.png", "--proxy-image-url-private"),
            ("http://[::ffff:127.0.0.1]/x.png", "--proxy-image-url-private"),
            ("http://169.254.169.254/latest/meta-data", "--proxy-image-url-private"),
            ("blob:x", "scheme 'blob'"),
            ("pictures/x.png", "neither base64 of a picture nor a URL"),
            ("", "is an empty string"),
            ("data:image/svg+xml,<svg/>", "SVG"),
            ("data:image/png;base64,iVBORw0KGgo=", "broken or cut off"),
        ],
    )
    def test_a_sentence_in_every_route(self, guided, plain, source, says):
        for server in (guided, plain):
            assert says in refused(server, text=WHAT, image_data=source)
            messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": source}}]}]
            for stream in (False, True):
                response = server.post("/v1/chat/completions", {"model": "m", "messages": messages, "stream": stream})
                assert response.status_code == 400 and says in response.json()["message"]
                assert "ImageData" not in response.text and "0x" not in response.text

    def test_existing_and_missing_files_are_told_alike(self, guided, plain, picture_folder):
        """On a server with a folder and on one without."""
        os.mkfifo(picture_folder / "pipe.png")
        paths = (__file__, "/no/such.png", os.sep, f"{picture_folder}/../x", str(picture_folder / "pipe.png"))
        for server in (guided, plain):
            assert len({refused(server, text=WHAT, image_data=path) for path in paths}) == 1

    @pytest.mark.parametrize("field", ["images_config", "image_max_dynamic_patch", "max_dynamic_patch"])
    def test_a_resolution_of_a_request(self, guided, plain, field):
        for server in (guided, plain):
            value = {"max_pixels": 3136} if field == "images_config" else 4
            assert "--mm-process-config" in refused(server, text=WHAT, image_data=png(56, 56, "red"), **{field: value})

    def test_detail(self, guided):
        url = png(56, 56, "red")
        for detail in ("low", "high"):
            content = [{"type": "image_url", "image_url": {"url": url, "detail": detail}}]
            with pytest.raises(openai.BadRequestError, match="--mm-process-config"):
                guided.chat([{"role": "user", "content": content}])
        content = [{"type": "image_url", "image_url": {"url": url, "detail": "auto"}}]
        assert guided.chat([{"role": "user", "content": content}])["choices"]

    def test_a_batch_with_files_and_videos_on_a_plain_server(self, plain):
        for field in ("video_data", "audio_data"):
            assert "takes data: URLs only" in refused(plain, text="x", **{field: "/etc/passwd"})
            assert "takes data: URLs only" in refused(plain, text="x", **{field: "http://127.0.0.1/x"})
