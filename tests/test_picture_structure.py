"""Small files that take decoders long are told by their headers; what people make never is."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.pictures.decode import FORMATS, decode
from sgl_proxythinker.pictures.structure import hindrance


def saved(form, size=(32, 32), mode="RGB", **options):
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(data, form, **options)
    return data.getvalue()


def jpeg_segments(count, segment=b"\xff\xe1\x00\x0cExif\0\0abcd"):
    plain = saved("JPEG")
    return plain[:2] + segment * count + plain[2:]


EMPTY = b"\xff\xe5\x00\x02"  # a segment of a JPEG


def jpeg_scans(count):
    """A progressive file whose last scan comes again and again."""
    plain = saved("JPEG", progressive=True)
    last = plain.rindex(b"\xff\xda")
    return plain[:-2] + plain[last:-2] * count + plain[-2:]


def tiff(tags, order="<"):
    """A header and one directory of (tag, type, count, value)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "LH", 8, len(tags))
    return head + b"".join(struct.pack(order + "HHLL", *tag) for tag in tags) + bytes(8)


def png(*chunks):
    header = struct.pack(">LLBBBBB", 2, 2, 8, 0, 0, 0, 0)
    every = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(6))), (b"IEND", b"")]
    made = [
        struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body)) for kind, body in every
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def gif(extension):
    plain = saved("GIF", mode="P")
    start = 13 + (3 << (plain[10] & 7) + 1)
    return plain[:start] + extension + plain[start:]


def texts(count):
    info = PngImagePlugin.PngInfo()
    for number in range(count):
        info.add_text(f"k{number}", "v" * 999)
    return info


def frames(mode, count):
    return {"save_all": True, "append_images": [Image.new(mode, (32, 32), number) for number in range(count)]}


def icon(width, height):
    bitmap = struct.pack("<LllHHLLllLL", 40, width, height * 2, 1, 1, 0, 0, 0, 0, 2, 0)
    return struct.pack("<HHHBBBBHHLL", 0, 1, 1, 0, 0, 2, 0, 1, 1, len(bitmap), 22) + bitmap


def bmp(side, compression):
    return b"BM" + bytes(12) + struct.pack("<LllHHLLllLL", 40, side, side, 1, 8, compression, 0, 0, 0, 0, 0)


def jpeg_2000(style, precincts, code_block, side=8000, boxes=b""):
    size = struct.pack(">HHHLLLLLLLLH", 0xFF51, 41, 0, side, side, 0, 0, side, side, 0, 0, 1) + b"\7\1\1"
    coding = bytes([style, 0, 0, 1, 0, len(precincts) - 1, code_block, code_block, 0, 1]) + precincts * (style & 1)
    header = b"\xff\x4f" + size + struct.pack(">HH", 0xFF52, len(coding) + 2) + coding + b"\xff\x90"
    signature = struct.pack(">L4sL", 12, b"jP  ", 0x0D0A870A)
    return signature + boxes + struct.pack(">L4s", 0, b"jp2c") + header if boxes else header


BOMBS = {
    "scans of a JPEG": jpeg_scans(100),
    "segments of EXIF": jpeg_segments(2000),
    "empty segments": jpeg_segments(2000, EMPTY),
    "megabytes of segments": jpeg_segments(300, b"\xff\xe2\xff\xff" + bytes(65533)),
    "bytes between segments": jpeg_segments(1, EMPTY + bytes(2000)),
    "padding between segments": jpeg_segments(1, EMPTY + b"\xff" * 2000),
    "strips": tiff([(273, 4, 70_000, 8)]),
    "strips of a type that is no number": tiff([(273, 1, 70_000, 8)], ">"),
    "values of another tag": tiff([(258, 3, 300_000, 8)]),
    "a fax that fills the log": tiff([(256, 4, 1, 100), (257, 4, 1, 100_000), (259, 3, 1, 4)]),
    "an icon": icon(9000, 9000),
    "an icon that hides a PNG": struct.pack("<HHHBBBBHHLL", 0, 1, 1, 0, 0, 0, 0, 1, 32, 100, 22)
    + b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">LL", 9000, 9000),
    "a PPM of another maximum": b"P6 3000 2000 254\n",
    "a PGM behind a long comment": b"P2 #" + b"a" * 70_000 + b"\n3000 2000 255\n",
    "a PGM in words": b"P2 # by hand\n3000 2000 255\n",
    "chunks of a PNG": png(*[(b"tEXt", b"a\0b")] * 1100),
    "comments of a GIF": gif(b"\x21\xfe\x01a\x00" * 1100),
    "bytes before the first frame of a GIF": gif(bytes(2000)),
    "a long comment of a GIF": gif(b"\x21\xfe" + (b"\xff" + b"a" * 255) * 5000 + b"\0"),
    "run lengths of a BMP": bmp(3000, 1),
    "code-blocks of 4 x 4": jpeg_2000(0, b"\x88", 0),
    "precincts of 2 x 2": jpeg_2000(1, b"\x11\x11", 4),
    "boxes of a JPEG 2000": jpeg_2000(0, b"\x88", 4, boxes=struct.pack(">L4s", 8, b"free") * 1100),
}  # fmt: skip


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_file_that_only_costs_time_is_refused_before_it_is_decoded(data):
    assert hindrance(data) is not None
    with pytest.raises(RequestError, match="takes far longer to decode than its pixels do: save it anew, as PNG"):
        decode(data, "the image")


ORDINARY = {
    **{form: saved(form) for form in FORMATS if form != "TGA"},
    "TGA": saved("TGA"),
    "ICO": saved("ICO", (256, 256)),
    "progressive JPEG": saved("JPEG", (600, 600), progressive=True, quality=95),
    "JPEG with a profile, EXIF and a comment": saved(
        "JPEG", icc_profile=bytes(200_000), exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", comment=b"a" * 1000
    ),
    "JPEG with restarts": saved("JPEG", (200, 200), restart_marker_blocks=2),
    "JPEG with some bytes between segments": jpeg_segments(1, EMPTY + bytes(100) + b"\xff" * 100),
    "JPEG before a film": saved("JPEG") + b"\xff\xda" * 1000,
    "TIFF of tiles, deflate": saved("TIFF", (300, 300), compression="tiff_deflate"),
    "BigTIFF": saved("TIFF", big_tiff=True),
    "fax": saved("TIFF", (300, 3000), "1", compression="group4"),
    "16-bit palette": saved("TIFF", mode="P"),
    "PNG with texts": saved("PNG", pnginfo=texts(50)),
    "animated GIF": saved("GIF", mode="P", comment=b"x" * 500, **frames("P", 50)),
    "animated PNG": saved("PNG", **frames("RGB", 50)),
    "large 16-bit PGM": b"P5 3000 2000 65535\n" + bytes(12_000_000),
    "large PBM": b"P4 3000 2000\n" + bytes(750_000),
    "small PGM of another maximum": b"P5 20 20 15\n" + bytes(400),
    "JPEG 2000 with layers and tiles": saved(
        "JPEG2000", (300, 300), tile_size=(128, 128), quality_layers=[20, 5], quality_mode="rates"
    ),
    "large JPEG 2000": saved("JPEG2000", (1200, 1100), precinct_size=(256, 256), codeblock_size=(64, 64)),
    "small JPEG 2000 of small blocks": saved("JPEG2000", (64, 64), codeblock_size=(4, 4)),
    "run lengths": bmp(300, 1) + bytes(1000),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_what_people_make_is_no_hindrance(name):
    assert hindrance(ORDINARY[name]) is None
    if name != "run lengths":
        decode(ORDINARY[name])


@pytest.mark.parametrize("name", [*BOMBS, *ORDINARY])
def test_a_file_that_is_cut_off_anywhere_is_never_a_fault(name):
    data = (BOMBS | ORDINARY)[name]
    for length in sorted({*range(0, 64), *(len(data) * part // 40 for part in range(40))}):
        hindrance(data[:length])
