"""What clients send for a picture: data URLs as browsers take them, base64, URLs and paths; and what is refused."""

import base64
import io
import os
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from transformers import AutoProcessor

from sgl_proxythinker.errors import LaunchError, RequestError
from sgl_proxythinker.pictures.addresses import is_public
from sgl_proxythinker.pictures.decode import decode
from sgl_proxythinker.pictures.files import read_file, read_in_folder
from sgl_proxythinker.pictures.part import (
    check_image_entry,
    check_picture_part,
    check_picture_settings,
    check_process_config,
)
from sgl_proxythinker.pictures.program import picture_bytes, see
from sgl_proxythinker.pictures.source import Local, Remote, read_source

MIB = 1 << 20


def encoded(form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(buffer, form)
    return buffer.getvalue()


PNG = encoded()
TEXT = base64.b64encode(PNG).decode()
SAFE = base64.urlsafe_b64encode(PNG).decode()


def read(text: str):
    return read_source(text, "the image", MIB)


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{TEXT}",
        f"DATA:image/png;base64,{TEXT}",
        f"data:image/png;BASE64,{TEXT}",
        f"data:image/png; base64 ,{TEXT}",
        f"data:image/png;charset=utf-8;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"data:image;base64,{TEXT}",
        f"data:image/jpeg;base64,{TEXT}",
        f"data:image/png;base64,{TEXT.rstrip('=')}",
        f"data:image/png;base64,{SAFE}",
        f"data:image/png;base64,{SAFE.rstrip('=')}",
        f"data:image/png;base64,{quote(TEXT, safe='')}",
        f"  data:image/png;base64,{TEXT}\n",
        f"data:image/png;base64,{base64.encodebytes(PNG).decode()}",
        f"data:image/png;base64,{TEXT}#top",
        "data:image/png," + quote(PNG),
        TEXT,
        SAFE.rstrip("="),
        base64.encodebytes(PNG).decode(),
        TEXT + "\r\n",
    ],
)
def test_each_form_of_a_data_url_holds_the_same_bytes(text):
    assert read(text) == PNG


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "ICO", "AVIF"])
def test_base64_without_a_url_around_it(form):
    """That of every JPEG begins with a slash, as a path does."""
    data = encoded(form)
    assert read(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("http://a.example/x.png", Remote("http://a.example/x.png")),
        ("HTTP://a.example/x.png", Remote("http://a.example/x.png")),
        ("https://a.example/x.png?a=b ", Remote("https://a.example/x.png?a=b")),
        ("/pictures/x.png", Local("/pictures/x.png")),
        ("file:///pictures/a%20b.png", Local("/pictures/a b.png")),
        ("FILE://localhost/pictures/x.png", Local("/pictures/x.png")),
        ("pictures/x.png", Local("pictures/x.png")),
    ],
)
def test_what_must_be_fetched_is_told_apart(text, source):
    assert read(text) == source


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is an empty string"),
        (" \n", "is an empty string"),
        ("blob:https://a.example/1-2", "scheme 'blob'"),
        ("ftp://a.example/x.png", "scheme 'ftp'"),
        ("javascript:alert(1)", "scheme 'javascript'"),
        ("data:image/png;base64", "without a comma"),
        ("data:image/png;base64,@@@@", "not base64: character 1 is '@'"),
        ("data:image/png;base64,abcde", "not base64"),
        ("data:image/png;base64,\u00e9", "not ASCII"),
        ("file://other.example/x.png", "of another host"),
        ("data:;base64," + "A" * 3_000_000, "longer than the 1 MiB"),
        ("A" * 3_000_000, "longer than the 1 MiB"),
        ("data:," + "A" * 3_000_000, "longer than the 1 MiB"),
        ("x" * 5000 + "!", "not base64: character 5001 is '!'"),
    ],
)
def test_a_refusal_says_why_in_few_words(text, says):
    with pytest.raises(RequestError) as refusal:
        read(text)
    assert says in str(refusal.value) and len(str(refusal.value)) < 200


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path):
        inside = tmp_path / "pictures"
        (inside / "deep").mkdir(parents=True)
        (inside / "deep" / "a.png").write_bytes(PNG)
        (tmp_path / "secret.png").write_bytes(PNG)
        (tmp_path / "pictures-beside").mkdir()
        (tmp_path / "pictures-beside" / "b.png").write_bytes(PNG)
        (inside / "out.png").symlink_to(tmp_path / "secret.png")
        (inside / "in.png").symlink_to(inside / "deep" / "a.png")
        (inside / "up").symlink_to(tmp_path)
        os.mkfifo(inside / "pipe.png")
        return inside.resolve()

    @pytest.mark.parametrize("name", ["deep/a.png", "in.png", "deep/../deep/a.png"])
    def test_below_the_folder(self, folder, name):
        assert read_in_folder(f"{folder}/{name}", folder, "the image", MIB) == PNG

    def test_everything_else_gets_one_sentence(self, folder):
        """A client learns neither which files there are nor what they are; a pipe does not hold anybody up."""
        names = (
            "../secret.png", "../missing.png", "out.png", "up/secret.png", "up/missing.png", "missing.png", "deep",
            "pipe.png", "../pictures-beside/b.png", "/../../../../../../../etc/passwd", "../../../../../../dev/zero",
            "a\0b.png", "x" * 300,
        )  # fmt: skip
        sentences = set()
        for name in names:
            with pytest.raises(RequestError) as refusal:
                read_in_folder(f"{folder}/{name}", folder, "the image", MIB)
            sentences.add(str(refusal.value))
        assert len(sentences) == 1 and str(folder) not in sentences.pop()

    def test_no_folder_no_files(self, folder):
        sentences = set()
        for path in (folder / "deep" / "a.png", folder / "missing.png", "/etc/passwd"):
            with pytest.raises(RequestError, match="--proxy-image-folder") as refusal:
                read_in_folder(str(path), None, "the image", MIB)
            sentences.add(str(refusal.value))
        assert len(sentences) == 1

    def test_a_long_file(self, folder):
        with pytest.raises(RequestError, match="longer than"):
            read_in_folder(f"{folder}/deep/a.png", folder, "the image", 10)

    def test_a_caller_in_this_process_reads_any_file_and_is_told_why_not(self, folder):
        assert read_file(folder.parent / "secret.png", "the picture", MIB) == PNG
        for name, why in (("missing.png", "No such file"), ("deep", "a folder"), ("pipe.png", "no regular file")):
            with pytest.raises(RequestError, match=why):
                read_file(folder / name, "the picture", MIB)


class TestPrograms:
    """`sgl.image`, the programs and the oracle."""

    def test_a_picture_in_any_form(self, tmp_path):
        path = tmp_path / "a.jpg"
        path.write_bytes(encoded("JPEG"))
        text = base64.b64encode(path.read_bytes()).decode()
        seen = [see(form) for form in (path, str(path), path.read_bytes(), f"data:;base64,{text}", text)]
        assert {one.tobytes() for one in seen} == {decode(path.read_bytes()).tobytes()}
        assert picture_bytes(path) == path.read_bytes(), "the file itself is sent"

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV"])
    def test_a_picture_of_pillow(self, mode):
        picture = Image.new(mode, (8, 4))
        assert decode(picture_bytes(picture)).tobytes() == see(picture).tobytes()

    @pytest.mark.parametrize("what", [None, 5, object(), ["a.png"]])
    def test_something_else(self, what):
        with pytest.raises(RequestError, match="a path, a URL, bytes or a PIL picture is wanted") as refusal:
            picture_bytes(what)
        assert "0x" not in str(refusal.value)

    def test_a_missing_file(self):
        with pytest.raises(RequestError, match="'no-such.png', which can't be read: No such file"):
            picture_bytes(Path("no-such.png"))


@pytest.mark.parametrize(
    "address",
    """127.0.0.1 127.9.9.9 0.0.0.0 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1
    100.127.255.255 192.0.0.1 192.0.2.1 198.18.0.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
    :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 fe80::1 fe80::1%eth0 fc00::1 fd12::1
    fec0::1 ff02::1 2001:db8::1 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1 2002:7f00:1:: 2002:a00:1::
    2001:0:4136:e378:8000:63bf:3fff:fdd2 nonsense""".split(),
)
def test_addresses_that_nobody_may_make_the_server_connect_to(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111"])
def test_addresses_of_the_public_internet(address):
    assert is_public(address)


class TestResolutions:
    """A wish for a resolution is refused with the flag, wherever it stands."""

    URL = "data:,x"

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "image_url", "image_url": {"url": URL}},
            {"type": "image_url", "image_url": {"url": URL, "detail": "auto"}},
            {"type": "image_url", "image_url": {"url": URL, "detail": None}},
            {"type": "image_url", "image_url": URL},
            {"type": "input_image", "image_url": URL, "detail": "auto"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}},
            {"type": "image", "source": {"type": "url", "url": URL}},
            {"type": "text", "text": "max_pixels"},
            {"type": "tool_result", "content": [{"type": "text", "text": "x"}]},
            {},
        ],
    )
    def test_a_plain_part_passes(self, part):
        check_picture_part(part, "messages[0].content[0]")

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "image_url", "max_pixels": 3136, "image_url": {"url": URL}},
            {"type": "image_url", "image_url": {"url": URL, "min_pixels": 3136}},
            {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
            {"type": "image_url", "image_url": {"url": URL, "detail": "high"}},
            {"type": "image_url", "image_url": {"url": URL, "detail": 5}},
            {"type": "image_url", "image_url": {"url": URL, "max_dynamic_patch": 2}},
            {"type": "image_url", "detail": "high", "image_url": URL},
            {"type": "image_url", "resized_height": 28, "image_url": {"url": URL}},
            {"type": "input_image", "image_url": URL, "detail": "low"},
            {"type": "image", "max_pixels": 9, "source": {"type": "url", "url": URL}},
            {"type": "tool_result", "content": [{"type": "image", "min_pixels": 1, "source": {"url": URL}}]},
        ],
    )
    def test_a_wish_in_a_part(self, part):
        with pytest.raises(RequestError, match=r"messages\[0\].content\[1\].*--mm-process-config"):
            check_picture_part(part, "messages[0].content[1]")

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "image_url"},
            {"type": "image_url", "image_url": {}},
            {"type": "image_url", "image_url": 5},
            {"type": "image", "image": URL},
            {"type": "image", "source": {"type": "base64", "data": ""}},
            {"type": "image", "source": {"type": "base64", "url": URL}},
            {"type": "image", "source": {"type": "url", "data": "x"}},
            {"type": "image", "source": {"type": "text", "data": "x"}},
            {"type": "image", "source": {"data": "x"}},
            {"type": "image", "source": {"type": "base64", "data": "x", "url": URL}},
        ],
    )
    def test_a_part_without_a_picture(self, part):
        with pytest.raises(RequestError, match="is wanted|chat takes|send base64 with data|send one of them"):
            check_picture_part(part, "content[0]")

    def test_the_flag_sets_it_with_both_limits_and_one_alone_does_not_start(self, triple):
        """As `transformers` reads them: one alone would be lost without a word."""
        processor = AutoProcessor.from_pretrained(triple.base).image_processor
        picture = Image.new("RGB", (224, 224))

        def grid(**limits):
            return processor([picture], return_tensors="pt", **limits)["image_grid_thw"].tolist()

        check_process_config({"image": {"min_pixels": 3136, "max_pixels": 12_544}})
        assert grid(min_pixels=3136, max_pixels=12_544) == [[1, 8, 8]] != grid()
        for limit in ({"max_pixels": 12_544}, {"min_pixels": 200_704}):
            assert grid(**limit) == grid(), "it works alone by now: the check can go"
            with pytest.raises(LaunchError, match=f"has {[*limit][0]} of images alone"):
                check_process_config({"image": limit})
        for nothing in (None, {}, {"image": {}}, {"video": {"max_pixels": 1}}):
            check_process_config(nothing)

    def test_entries_of_generate(self):
        for entry in (self.URL, None, {"url": self.URL}, [[self.URL], None]):
            check_image_entry(entry, "image_data")
        for entry in ({"url": self.URL, "detail": "low"}, [{"url": self.URL, "max_pixels": 9}]):
            with pytest.raises(RequestError, match="--mm-process-config"):
                check_image_entry(entry, "image_data")
        for entry in (5, {"format": "processor_output"}, {"path": "x"}, [True]):
            with pytest.raises(RequestError, match="wanted|send the image itself"):
                check_image_entry(entry, "image_data")

    def test_the_top_of_a_body(self):
        check_picture_settings({"max_tokens": 3, "size": 5, "images_config": None, "mm_hashes": []})
        for field in ("max_pixels", "mm_processor_kwargs", "images_config", "image_max_dynamic_patch"):
            with pytest.raises(RequestError, match=f"{field} .*--mm-process-config"):
                check_picture_settings({field: {"max_pixels": 1}})
        with pytest.raises(RequestError, match="mm_hashes can't be sent"):
            check_picture_settings({"mm_hashes": ["00ff"]})


def test_a_name_that_is_looked_up_leaves_no_thread_behind():
    """Programs download by themselves; each time with threads that end."""
    before = threading.active_count()
    with pytest.raises(RequestError, match="can't be downloaded"):
        picture_bytes("http://127.0.0.1:9/x.png")
    assert threading.active_count() <= before + 1
