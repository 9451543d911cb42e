"""Files that are small and take decoders long: what their headers announce is counted before a decoder sees them.

Pixels are bounded by `decode.check_size`. These are the other ways to ask for much work by few bytes: scans of a JPEG,
strips of a TIFF, blocks of a JPEG 2000, pictures of an icon, thousands of segments, what Pillow decodes in Python.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

# Progressive files of cameras and programs have about ten scans; each is a pass over all pixels.
MAX_SCANS = 64
# Segments, tags, chunks, boxes, extensions: whatever stands beside pixels. One of a JPEG has up to 64 KiB, so a colour
# profile of 16 MiB has 256 of them. Pillow copies what it has of EXIF or of a comment for each further one.
MAX_SEGMENTS = 1024
MAX_SEGMENT_BYTES = 16 << 20
MAX_HEADER_BYTES = 64 << 10  # of a PNM, which Pillow reads byte by byte
MAX_EXTENSION_BYTES = 1 << 20  # of a GIF, in sub-blocks of 255 bytes
# Chunks of a PNG's pixels, each a step of Pillow's in Python; writers make them of 8 KiB and more.
MAX_PIXEL_CHUNKS = 262_144
# Strips or tiles of a TIFF, each an object of Pillow's, and a step of its decoder.
MAX_STRIPS = 65_536
# Values of any other tag that isn't bytes or text; the palette of 16 bits has 196,608.
MAX_TAG_VALUES = 262_144
# libtiff writes a line into the log for each broken row of a fax.
MAX_FAX_ROWS = 30_000
# An icon's picture is decoded when it is opened, before its pixels are counted against the server's budget.
MAX_ICON_PIXELS = 4_000_000
# PNM other than 8 bits a sample, and run lengths of a BMP, which Pillow decodes in Python: 0.3 s a million.
MAX_SLOW_PIXELS = 4_000_000
# Of a JPEG 2000 with more than a million pixels: code-blocks and precincts are objects of the decoder's.
LEAST_BLOCK_BITS = 8  # 16 x 16
LEAST_PRECINCT_BITS = 4  # 16
_SMALL = 1_000_000

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in entropy-coded data, where FF is followed by 00 or RST0 to RST7
_SOS, _EOI, _TEM, _SOI = 0xDA, 0xD9, 0x01, 0xD8
_STRIPS = frozenset((273, 279, 324, 325))  # StripOffsets, StripByteCounts, TileOffsets, TileByteCounts
_HEIGHT, _COMPRESSION = 257, 259
_FAX = frozenset((2, 3, 4))
_BYTES, _ASCII, _UNDEFINED = 1, 2, 7


def hindrance(data: bytes) -> str | None:
    """Why decoding a file would take far more than its pixels do, as the end of a sentence; None where it wouldn't.

    A file that is broken or of another format is none of its business: decoders say what is wrong with it.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _of_jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _of_png(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _of_gif(data)
        if data.startswith(b"BM"):
            return _of_bmp(data)
        if data.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")):
            return _of_jpeg_2000(data)
        if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            return _of_tiff(data)
        if data.startswith(b"\0\0\1\0"):
            return _of_icon(data)
        if re.match(rb"P[1-6][\s#]", data[:3]):
            return _of_pnm(data)
    except (struct.error, IndexError, ValueError):
        return None
    return None


def _of_jpeg(data: bytes) -> str | None:
    segments = scans = held = 0
    for marker, length in _segments(data):
        segments += length if marker is None else 1  # Pillow passes over what is no segment byte by byte
        scans += marker == _SOS
        held += length
        if scans > MAX_SCANS:
            return f"has more than {MAX_SCANS} scans"
        if segments > MAX_SEGMENTS or held > MAX_SEGMENT_BYTES:
            return f"has more than {MAX_SEGMENTS:,} segments or {MAX_SEGMENT_BYTES >> 20} MiB beside its pixels"
    return None


def _segments(data: bytes) -> Iterator[tuple[int | None, int]]:
    """The marker and the length of each segment of a JPEG up to its end, entropy-coded data passed over.

    What stands between them has the marker None.
    """
    at = 2
    while (start := data.find(b"\xff", at)) >= 0 and start + 1 < len(data):
        if start > at:
            yield None, start - at
        marker = data[start + 1]
        if marker == 0xFF:  # padding
            at = start + 1
            yield None, 1
            continue
        if marker == _EOI:
            return
        if marker in (0, _TEM, _SOI) or 0xD0 <= marker <= 0xD7:
            at = start + 2
            yield marker, 0
            continue
        (length,) = struct.unpack_from(">H", data, start + 2)
        at = start + 2 + length
        yield marker, length
        if marker == _SOS:
            found = _MARKER.search(data, at)
            if found is None:
                return
            at = found.start()


def _of_tiff(data: bytes) -> str | None:
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    entry, count_of, offset = (order + "HHQ", "Q", 8) if is_big else (order + "HHL", "H", 4)
    (start,) = struct.unpack_from(order + ("Q" if is_big else "L"), data, offset)
    (entries,) = struct.unpack_from(order + count_of, data, start)
    if entries > MAX_SEGMENTS:
        return f"has more than {MAX_SEGMENTS:,} tags"
    start += struct.calcsize(order + count_of)
    values = {}
    for number in range(entries):
        place = start + number * (20 if is_big else 12)
        tag, kind, count = struct.unpack_from(entry, data, place)
        if tag in _STRIPS and count > MAX_STRIPS:
            return f"has more than {MAX_STRIPS:,} strips or tiles"
        if kind not in (_BYTES, _ASCII, _UNDEFINED) and count > MAX_TAG_VALUES:
            return f"has a tag of more than {MAX_TAG_VALUES:,} values"
        if count == 1 and kind in (3, 4):
            (values[tag],) = struct.unpack_from(order + "HL"[kind == 4], data, place + struct.calcsize(entry))
    if values.get(_COMPRESSION) in _FAX and values.get(_HEIGHT, 0) > MAX_FAX_ROWS:
        return f"is a fax of more than {MAX_FAX_ROWS:,} rows"
    return None


def _of_icon(data: bytes) -> str | None:
    (pictures,) = struct.unpack_from("<H", data, 4)
    if pictures > MAX_SEGMENTS:
        return f"has more than {MAX_SEGMENTS:,} pictures"
    for number in range(pictures):
        (start,) = struct.unpack_from("<L", data, 6 + 16 * number + 12)
        if data[start : start + 4] == b"\x89PNG":
            width, height = struct.unpack_from(">LL", data, start + 16)
        else:
            width, height = map(abs, struct.unpack_from("<ll", data, start + 4))
        if width * height > MAX_ICON_PIXELS:
            return f"is an icon of more than {MAX_ICON_PIXELS:,} pixels"
    return None


def _of_pnm(data: bytes) -> str | None:
    """Plain text (P1 to P3), and samples of another maximum than 255, are read by Pillow's decoders in Python."""
    head = re.sub(rb"#[^\r\n]*", b" ", data[:MAX_HEADER_BYTES]).split(maxsplit=4)
    if len(head) < 4 and len(data) > MAX_HEADER_BYTES:
        return f"has a comment of more than {MAX_HEADER_BYTES >> 10} KiB"
    width, height = int(head[1]), int(head[2])
    kind, most = head[0], b"" if head[0] == b"P4" else head[3]
    is_fast = kind == b"P4" or (kind in (b"P5", b"P6") and most == b"255") or (kind == b"P5" and most == b"65535")
    if not is_fast and width * height > MAX_SLOW_PIXELS:
        return f"is a PNM of more than {MAX_SLOW_PIXELS:,} pixels that has not 8 bits a sample"
    return None


def _of_png(data: bytes) -> str | None:
    at, beside, of_pixels = 8, 0, 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, at)
        at += 12 + length
        if kind == b"IEND":
            break
        of_pixels += kind in (b"IDAT", b"fdAT")
        beside += kind not in (b"IDAT", b"fdAT", b"fcTL")
        if beside > MAX_SEGMENTS or of_pixels > MAX_PIXEL_CHUNKS:
            return f"has more than {MAX_SEGMENTS:,} chunks, or {MAX_PIXEL_CHUNKS:,} of pixels"
    return None


def _of_gif(data: bytes) -> str | None:
    """What stands before the first frame."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    extensions = held = 0
    while data[at] not in b",;":  # the first frame, or the end
        at += 1
        extensions += 1
        if data[at - 1] != ord("!"):  # Pillow passes over what is no extension byte by byte
            if extensions > MAX_SEGMENTS:
                return f"has more than {MAX_SEGMENTS:,} bytes that are none of a GIF"
            continue
        at += 1
        while size := data[at]:
            at += 1 + size
            held += size
            if held > MAX_EXTENSION_BYTES:
                break
        at += 1
        if extensions > MAX_SEGMENTS or held > MAX_EXTENSION_BYTES:
            return f"has more than {MAX_SEGMENTS:,} extensions or {MAX_EXTENSION_BYTES >> 20} MiB in them"
    return None


def _of_bmp(data: bytes) -> str | None:
    size, width, height, _, _, compression = struct.unpack_from("<LllHHL", data, 14)
    if size >= 40 and compression in (1, 2) and max(len(data), abs(width * height)) > MAX_SLOW_PIXELS:
        return f"is a BMP of run lengths with more than {MAX_SLOW_PIXELS:,} pixels or bytes"
    return None


def _of_jpeg_2000(data: bytes) -> str | None:
    at = 0
    if data.startswith(b"\0"):
        for _ in range(MAX_SEGMENTS):
            length, kind = struct.unpack_from(">L4s", data, at)
            head = 8
            if length == 1:
                (length,) = struct.unpack_from(">Q", data, at + 8)
                head = 16
            if kind == b"jp2c":
                at += head
                break
            if length < head or (kind == b"jp2h" and length > MAX_EXTENSION_BYTES):
                return "has a header that is broken or too long"
            at += length
        else:
            return f"has more than {MAX_SEGMENTS:,} boxes"
    return _of_codestream(data, at + 2)


def _of_codestream(data: bytes, at: int) -> str | None:
    """Marker segments of the main header and of each tile's; their packets are passed over."""
    pixels = components = tile_end = 0
    for _ in range(MAX_PIXEL_CHUNKS):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFF51:  # SIZ
            width, height, left, top = struct.unpack_from(">LLLL", data, at + 6)
            pixels = (width - left) * (height - top)
            (components,) = struct.unpack_from(">H", data, at + 38)
        elif marker == 0xFF52:  # COD
            if _is_fine_grained(data, data[at + 4], at + 9, pixels):
                return _FINE
        elif marker == 0xFF53:  # COC
            index_bytes = 1 if components < 257 else 2
            if _is_fine_grained(data, data[at + 4 + index_bytes], at + 5 + index_bytes, pixels):
                return _FINE
        elif marker == 0xFF90:  # SOT
            (part,) = struct.unpack_from(">L", data, at + 6)
            tile_end = at + part if part else len(data)
        elif marker == 0xFF93:  # SOD
            at = tile_end
            continue
        at += 2 + length
    return f"has more than {MAX_PIXEL_CHUNKS:,} segments"


def _is_fine_grained(data: bytes, style: int, at: int, pixels: int) -> bool:
    """Whether a large picture is made of tiny pieces; `at` is where its levels and sizes of pieces stand."""
    if pixels <= _SMALL:
        return False
    levels, width, height = data[at], data[at + 1] + 2, data[at + 2] + 2
    if width + height < LEAST_BLOCK_BITS:
        return True
    # The first precinct is of the smallest picture, which is small itself.
    precincts = data[at + 6 : at + 6 + levels] if style & 1 else b""
    return any(min(size & 15, size >> 4) < LEAST_PRECINCT_BITS for size in precincts)


_FINE = "has code-blocks or precincts of a few pixels"
