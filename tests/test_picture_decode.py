"""What a camera, a scanner or a drawing program makes is seen as a person sees it: as a twin drawn in 8-bit RGB."""

import io
import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms
from transformers.image_utils import load_image

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.pictures.decode import as_seen, decode, open_picture

PILLOW = int(PIL.__version__.partition(".")[0])
WIDTH, HEIGHT = 24, 12


def photo(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def quarters() -> Image.Image:
    """[32 x 16], a colour in each quarter: it shows how it lies."""
    small = np.array([[[250, 20, 20], [20, 250, 20]], [[20, 20, 250], [180, 180, 20]]], dtype=np.uint8)
    return Image.fromarray(small.repeat(8, 0).repeat(16, 1))


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def assert_seen_as(seen: Image.Image, twin: Image.Image, tolerance: int = 0) -> None:
    assert seen.size == twin.size
    assert np.abs(pixels(seen) - np.asarray(twin.convert("RGB")).astype(int)).max() <= tolerance


def ramp(top: int, dtype: str) -> np.ndarray:
    """[12, 24] of grey from 0 to `top`."""
    return np.linspace(0, top, WIDTH * HEIGHT).astype(dtype).reshape(HEIGHT, WIDTH)


EIGHT_BITS = Image.fromarray(np.rint(ramp(65535, "float64") / 257).astype(np.uint8))

# One step of 8 bits, where the twin and the picture are rounded from other grounds.
ROUNDING = 1


class TestOrientation:
    # EXIF's number of how the upright picture was laid into the file.
    LAID = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }

    @pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF"])
    @pytest.mark.parametrize("orientation", LAID)
    def test_a_picture_is_turned_as_its_camera_says(self, orientation, form):
        upright = quarters()
        lying = Image.fromarray(np.ascontiguousarray(self.LAID[orientation](np.asarray(upright))))
        exif = Image.Exif()
        exif[0x112] = orientation
        options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(form, {})
        tolerance = 9 if form == "AVIF" else 0  # its colours are rounded; a wrong turn is off by 150
        assert_seen_as(decode(encoded(lying, form, exif=exif, **options)), upright, tolerance)

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_a_number_that_means_nothing_turns_nothing(self, orientation):
        exif = Image.Exif()
        exif[0x112] = orientation
        assert_seen_as(decode(encoded(photo(), "PNG", exif=exif)), photo())

    def test_broken_exif_turns_nothing(self):
        assert_seen_as(decode(encoded(photo(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")), photo())

    def test_grey_of_16_bits_is_turned_too(self):
        exif = Image.Exif()
        exif[0x112] = 3
        grey = Image.fromarray(np.ascontiguousarray(ramp(65535, "uint16")[::-1, ::-1]))
        assert_seen_as(decode(encoded(grey, "PNG", exif=exif)), EIGHT_BITS, ROUNDING)


def png(colour_type: int, depth: int, rows: list[bytes], chunks: dict[bytes, bytes], width: int) -> bytes:
    """A PNG of one's own making, for kinds that Pillow reads and does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    extra = b"".join(chunk(kind, value) for kind, value in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


class TestTransparency:
    @pytest.fixture
    def half(self):
        """Opacity by column, and a picture drawn with it on white by hand."""
        alpha = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
        return alpha, alpha[..., None] / 255

    @pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "ICO"])
    def test_colour(self, half, form):
        alpha, share = half
        picture = photo()
        twin = np.asarray(picture) * share + 255 * (1 - share)
        picture.putalpha(Image.fromarray(alpha))
        options = {"WEBP": {"lossless": True, "exact": True}, "ICO": {"sizes": [(WIDTH, HEIGHT)]}}.get(form, {})
        assert_seen_as(decode(encoded(picture, form, **options)), Image.fromarray(np.rint(twin).astype(np.uint8)), 1)

    def test_grey(self, half):
        alpha, share = half
        grey = photo().convert("L")
        twin = np.asarray(grey)[..., None].repeat(3, 2) * share + 255 * (1 - share)
        grey.putalpha(Image.fromarray(alpha))
        assert grey.mode == "LA"
        assert_seen_as(decode(encoded(grey, "PNG")), Image.fromarray(np.rint(twin).astype(np.uint8)), 1)

    def test_a_palette_with_a_transparent_entry_or_a_table(self):
        palette = Image.new("P", (2, 1))
        palette.putpalette([255, 0, 0, 0, 0, 255])
        palette.putdata([0, 1])
        assert pixels(decode(encoded(palette, "PNG", transparency=1))).tolist() == [[[255, 0, 0], [255, 255, 255]]]
        assert pixels(decode(encoded(palette, "PNG", transparency=bytes([255, 51])))).tolist() == [
            [[255, 0, 0], [204, 204, 255]]
        ]
        assert pixels(decode(encoded(palette, "GIF", transparency=1))).tolist() == [[[255, 0, 0], [255, 255, 255]]]

    def test_a_transparent_colour(self):
        colour = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8))
        assert pixels(decode(encoded(colour, "PNG", transparency=(1, 2, 3)))).tolist() == [[[255] * 3, [9] * 3]]

    @pytest.mark.parametrize(
        ("depth", "rows", "key", "seen"),
        [
            (1, [b"\x40"], 0, [255, 255]),
            (1, [b"\x40"], 1, [0, 255]),
            (2, [b"\x70"], 1, [255, 255]),
            (2, [b"\x60"], 1, [255, 170]),
            (4, [b"\x3a"], 3, [255, 170]),
            (8, [b"\x03\x77"], 3, [255, 0x77]),
            (16, [b"\x03\x00\x80\x80"], 0x300, [255, 0x80]),
        ],
    )
    def test_a_transparent_grey_of_every_depth(self, depth, rows, key, seen):
        data = png(0, depth, rows, {b"tRNS": struct.pack(">H", key)}, 2)
        assert pixels(decode(data))[0, :, 0].tolist() == seen

    def test_a_transparent_colour_of_16_bits(self):
        row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x8080, 0, 0)
        data = png(2, 16, [row], {b"tRNS": struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)}, 2)
        assert pixels(decode(data)).tolist() == [[[255] * 3, [0x80, 0, 0]]]

    @pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
    def test_modes_that_only_pillow_has(self, mode):
        red = Image.new("RGBA" if mode != "La" else "LA", (2, 2), (255, 0, 0, 0) if mode != "La" else (0, 0))
        picture = red.convert(mode) if mode != "PA" else red.convert("RGB").convert("P").convert("PA")
        if mode == "PA":
            picture.putalpha(0)
        assert (pixels(as_seen(picture)) == 255).all()

    def test_a_wholly_transparent_picture_is_white_and_not_black(self):
        assert (pixels(decode(encoded(Image.new("RGBA", (3, 3), (0, 0, 0, 0)), "PNG"))) == 255).all()


class TestDeepGrey:
    """White of a picture with more than 8 bits is white, and half of it is grey."""

    @pytest.mark.parametrize("form", ["PNG", "TIFF"])
    def test_16_bits(self, form):
        assert_seen_as(decode(encoded(Image.fromarray(ramp(65535, "uint16")), form)), EIGHT_BITS, ROUNDING)

    @pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
    def test_16_bits_in_every_order_of_bytes(self, mode):
        order = ">" if mode.endswith("B") else "<"
        picture = Image.frombytes(mode, (WIDTH, HEIGHT), ramp(65535, f"{order}u2").tobytes())
        assert_seen_as(as_seen(picture), EIGHT_BITS, ROUNDING)

    def test_12_bits_in_a_file_of_16_are_as_dark_as_it_says(self):
        seen = pixels(decode(encoded(Image.fromarray(ramp(4095, "uint16")), "PNG")))
        assert seen.max() == round(4095 / 257)

    def test_12_bits_in_a_file_of_12_reach_white(self):
        values = ramp(4095, "uint16").ravel()
        first, second = values[0::2], values[1::2]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8).tobytes()
        assert_seen_as(decode(tiff(packed, bits=12)), EIGHT_BITS, ROUNDING)

    def test_white_is_zero(self):
        inverted = (65535 - ramp(65535, "uint16")).astype("<u2").tobytes()
        assert_seen_as(decode(tiff(inverted, bits=16, photometric=0)), EIGHT_BITS, ROUNDING)

    @pytest.mark.parametrize("top", [255, 65535, 2**31 - 1])
    def test_32_bits(self, top):
        picture = Image.fromarray(ramp(top, "int32"))
        assert picture.mode == "I"
        assert_seen_as(as_seen(picture), EIGHT_BITS, ROUNDING)
        assert_seen_as(decode(encoded(picture, "TIFF")), EIGHT_BITS, ROUNDING)

    @pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
    def test_floating_point(self, top):
        picture = Image.fromarray((ramp(65535, "float64") / 65535 * top).astype("float32"))
        assert picture.mode == "F"
        assert_seen_as(as_seen(picture), EIGHT_BITS, ROUNDING)
        assert_seen_as(decode(encoded(picture, "TIFF")), EIGHT_BITS, ROUNDING)

    def test_32_bits_without_a_sign(self):
        """Pillow reads the brighter half as negative numbers, which would be black."""
        values = np.linspace(0, 2**32 - 1, WIDTH * HEIGHT).astype("<u4")
        seen = pixels(decode(tiff(values.tobytes(), bits=32)))[..., 0].reshape(-1)
        assert seen.tolist() == pytest.approx(np.linspace(0, 255, WIDTH * HEIGHT), abs=1)

    def test_a_pfm_is_scaled_as_any_floating_point(self):
        for top in (1.0, 255.0):
            picture = Image.fromarray((ramp(65535, "float64") / 65535 * top).astype("float32"))
            assert_seen_as(decode(encoded(picture, "PPM")), EIGHT_BITS, ROUNDING)

    def test_what_is_no_number_or_below_black_is_black(self):
        values = np.array([[np.nan, -np.inf, -3, 0.5, 1]], dtype="float32")
        assert pixels(as_seen(Image.fromarray(values)))[0, :, 0].tolist() == [0, 0, 0, 128, 255]

    def test_a_pgm_of_any_maximum(self):
        data = b"P5 2 1 1023\n" + struct.pack(">2H", 0, 1023)
        assert pixels(decode(data))[0, :, 0].tolist() == [0, 255]

    def test_a_dark_pgm_stays_dark(self):
        data = b"P5 2 1 65535\n" + struct.pack(">2H", 0, 255)
        assert pixels(decode(data))[0, :, 0].tolist() == [0, 1]


def tiff(data: bytes, bits: int, photometric: int = 1) -> bytes:
    """A TIFF of one uncompressed strip of grey, little-endian."""
    tags = [(256, 3, WIDTH), (257, 3, HEIGHT), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 0),
            (277, 3, 1), (278, 3, HEIGHT), (279, 4, len(data))]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, start if tag == 273 else value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + data


class TestColours:
    @pytest.mark.parametrize(
        ("mode", "form", "tolerance"),
        [
            ("1", "PNG", 0),
            ("L", "PNG", 0),
            ("L", "TIFF", 0),
            ("P", "PNG", 0),
            ("P", "GIF", 0),
            ("RGB", "BMP", 0),
            ("RGB", "PPM", 0),
            ("RGB", "TGA", 0),
            ("RGB", "JPEG2000", 0),
            ("CMYK", "TIFF", 0),
            pytest.param("YCbCr", "TIFF", 2, marks=pytest.mark.skipif(PILLOW < 13, reason="a 400 before Pillow 13")),
        ],
    )
    def test_a_mode_in_a_file_is_as_its_rgb_twin(self, mode, form, tolerance):
        picture = photo().convert(mode)
        assert_seen_as(decode(encoded(picture, form)), picture.convert("RGB"), tolerance)

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
    def test_jpeg(self, mode):
        plain = Image.new("RGB", (32, 32), (200, 120, 40)).convert(mode)
        assert_seen_as(decode(encoded(plain, "JPEG", quality=95)), plain.convert("RGB"), 4)

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGBX", "CMYK", "YCbCr", "HSV"])
    def test_a_picture_of_pillow_in_any_mode(self, mode):
        picture = photo().convert("RGB").convert(mode)
        assert_seen_as(as_seen(picture), picture.convert("RGB"))

    def test_lab(self):
        lab = ImageCms.applyTransform(
            photo(),
            ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
        )
        off = np.abs(pixels(decode(encoded(lab, "TIFF"))) - np.asarray(photo()))
        assert off.mean() < 3  # LAB in 8 bits is coarse; read as RGB it would be off by 80

    @pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
    def test_the_first_frame_of_several(self, form):
        first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
        options = {"lossless": True} if form == "WEBP" else {}
        data = encoded(first, form, save_all=True, append_images=[second], **options)
        assert_seen_as(decode(data), first, 3 if form == "AVIF" else 0)

    def test_mpo(self):
        first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
        data = encoded(first, "MPO", save_all=True, append_images=[second])
        assert_seen_as(decode(data), first, 3)

    def test_the_callers_picture_is_not_changed(self):
        picture = photo()
        picture.info["dpi"] = (72, 72)
        seen = as_seen(picture)
        assert not seen.info and picture.info
        seen.paste("white", (0, 0, WIDTH, HEIGHT))
        assert picture.tobytes() == photo().tobytes()


class TestRefusals:
    """One sentence that says what is wrong, and nothing of the data, of Python or of the server."""

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"", "is empty"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
            (b"<?xml version='1.0'?><svg/>", "SVG"),
            (b"<!DOCTYPE html><html></html>", "no picture"),
            (b"%PDF-1.7\n", "PDF"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
            (b"\x93NUMPY garbage", "no picture format"),
            (encoded(photo(), "PNG")[:60], "broken or cut off"),
            (encoded(photo(width=200, height=200), "JPEG")[:900], "broken or cut off"),
            (encoded(photo(width=200, height=200), "WEBP")[:900], "broken or cut off"),
            (encoded(photo(width=200, height=200), "TIFF")[:-900], "broken or cut off"),
            (encoded(photo(), "PNG").replace(b"IDAT", b"IDAX"), "broken or cut off"),
        ],
        ids=["empty", "svg", "xml", "html", "pdf", "eps", "heic", "npy", "png", "jpeg", "webp", "tiff", "checksum"],
    )
    def test_what_can_not_be_read(self, data, says):
        with pytest.raises(RequestError) as refusal:
            decode(data, "image 2")
        sentence = str(refusal.value)
        assert sentence.startswith("image 2 ") and says in sentence and len(sentence) < 200
        assert "0x" not in sentence and "BytesIO" not in sentence and "\\x" not in sentence

    def test_a_png_without_its_last_chunk_is_read(self):
        assert_seen_as(decode(encoded(photo(), "PNG")[:-12]), photo())

    def test_a_bomb_is_refused_by_its_header(self):
        bomb = png_header(20_000, 8_000)
        with pytest.raises(RequestError, match=r"20000 x 8000, and at most 64,000,000 pixels are taken"):
            open_picture(bomb, "the image", 64_000_000)
        with pytest.raises(RequestError, match="which no server takes"):
            open_picture(png_header(60_000, 60_000), "the image")

    def test_an_icon_that_hides_a_bomb(self):
        icon = encoded(photo().resize((16, 16)), "ICO", sizes=[(16, 16)])
        start = icon.index(b"\x89PNG")
        hidden = icon[:start] + png_header(20_000, 8_000)
        with pytest.raises(RequestError, match="is an icon of more than 4,000,000 pixels"):
            open_picture(hidden, "the image", 64_000_000)

    def test_a_picture_without_pixels(self):
        with pytest.raises(RequestError, match="can't be read: its data are broken"):
            decode(png_header(0, 5))


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header says this size; nobody may look further."""
    whole = png(2, 8, [], {}, width)
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


class TestBesideTransformersLoader:
    """`transformers.image_utils.load_image`, which other servers and training code use: where it differs, and why."""

    def theirs(self, data: bytes, tmp_path) -> Image.Image:
        path = tmp_path / "picture"
        path.write_bytes(data)
        return load_image(str(path))

    @pytest.mark.parametrize(
        "data",
        [
            encoded(photo(), "PNG"),
            encoded(photo(), "JPEG"),
            encoded(photo(), "WEBP"),
            encoded(photo().convert("L"), "PNG"),
            encoded(photo().convert("P"), "GIF"),
            encoded(photo().convert("CMYK"), "JPEG"),
        ],
        ids=["PNG", "JPEG", "WEBP", "grey", "GIF", "CMYK"],
    )
    def test_it_sees_the_same_where_no_person_sees_more(self, data, tmp_path):
        assert_seen_as(decode(data), self.theirs(data, tmp_path))

    def test_orientation_is_the_same(self, tmp_path):
        exif = Image.Exif()
        exif[0x112] = 6
        data = encoded(photo(), "JPEG", exif=exif)
        assert decode(data).size == (HEIGHT, WIDTH)
        assert_seen_as(decode(data), self.theirs(data, tmp_path))

    def test_it_drops_transparency_and_clips_deep_grey(self, tmp_path):
        nothing = encoded(Image.new("RGBA", (3, 3), (0, 0, 0, 0)), "PNG")
        assert pixels(self.theirs(nothing, tmp_path)).max() == 0 and pixels(decode(nothing)).min() == 255
        values = np.array([[0.0, 0.25, 0.75, 1.0]], dtype="float32")
        grey = encoded(Image.fromarray(values), "TIFF")
        assert pixels(self.theirs(grey, tmp_path)).max() <= 1
        assert pixels(decode(grey))[0, :, 0].tolist() == [0, 64, 191, 255]
