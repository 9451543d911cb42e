"""The one image loader: an encoded picture becomes the RGB picture that a person sees in a viewer.

Server, `sgl.image`, programs and the oracle all read pictures by it. It knows no SGLang. What it does that a bare
`convert("RGB")` does not: EXIF orientation, transparency on white, grey of more than 8 bits scaled and not clipped.
"""

from __future__ import annotations

import io

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.IcoImagePlugin import IcoFile

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.pictures.grey import is_deep_grey, to_eight_bits
from sgl_proxythinker.pictures.structure import hindrance

# What cameras, scanners, browsers and drawing programs write. Formats that Pillow hands to other programs (EPS) or
# that are seldom tried are left out.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")

_ICON, _PNG = b"\0\0\1\0", b"\x89PNG"

# In `info` of an opened PNG: bits of a sample in the file, which Pillow forgets.
_DEPTH = "proxythinker_depth"

# Pillow itself refuses pictures of more than this, whatever we allow.
MOST_PIXELS = 178_000_000

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_FOREIGN = (
    (lambda head: head.startswith(b"%PDF"), "is a PDF; render its page as PNG"),
    (lambda head: head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")), "is PostScript; render it as PNG"),
    (
        lambda head: head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"),
        "is HEIC, which Pillow doesn't read; send it as JPEG",
    ),
    (lambda head: b"<svg" in head.lower(), "is SVG, a drawing without pixels; render it as PNG"),
    (lambda head: head.lstrip()[:1] == b"<", "is a page or other text, no picture"),
)


def open_picture(data: bytes, name: str, max_pixels: int = MOST_PIXELS) -> Image.Image:
    """Read the header of an encoded picture; its pixels are not decoded.

    Args:
        data: the file's bytes.
        name: of the picture in error messages, as "image 2".
        max_pixels: width times height that is taken.

    Raises:
        RequestError: no known format, no pixels, too many of them, or a file that only costs time (`structure`).
    """
    if not data:
        raise RequestError(f"{name} is empty: it has 0 bytes.")
    if (why := hindrance(data)) is not None:
        raise RequestError(f"{name} {why}, which takes far longer to decode than its pixels do: save it anew, as PNG.")
    try:
        if data.startswith(_ICON):
            # Pillow decodes an icon when it is opened. The picture in it has a header of its own.
            picture = IcoFile(io.BytesIO(data)).frame(0)
        else:
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise RequestError(
            f"{name} has more than {MOST_PIXELS:,} pixels, which no server takes: send a smaller one."
        ) from None
    except UnidentifiedImageError:
        raise RequestError(f"{name} {_what_it_is(data)}.") from None
    except Exception:  # decoders raise dozens of types, with addresses of objects and parts of the data in the text
        raise RequestError(f"{name} can't be read: its data are broken or cut off.") from None
    check_size(picture, name, max_pixels)
    if data.startswith(_PNG):
        picture.info[_DEPTH] = data[24] if len(data) > 24 else 8
    return picture


def check_size(picture: Image.Image, name: str, max_pixels: int) -> None:
    """Raise RequestError unless a picture has pixels, and not too many."""
    width, height = picture.size
    if width * height == 0:
        raise RequestError(f"{name} is {width} x {height}: it has no pixels.")
    if width * height > max_pixels:
        raise RequestError(
            f"{name} is {width} x {height}, and at most {max_pixels:,} pixels are taken: send a smaller one, or raise "
            "--proxy-image-max-megapixels."
        )


def as_seen(picture: Image.Image, name: str = "the picture", may_change: bool = False) -> Image.Image:
    """A picture of any mode as RGB: upright, on white where it is transparent, the first frame of several.

    Args:
        picture: from `open_picture`, or anybody's; it is not changed, other than that its pixels are loaded.
        name: of the picture in error messages.
        may_change: nobody else has `picture`, so what is returned may be it: megabytes that are not copied.

    Returns:
        mode RGB, a new picture unless it may be changed, without metadata.

    Raises:
        RequestError: its data are broken or cut off, or there is no memory for it.
    """
    try:
        picture.load()
        seen = picture if may_change and _is_plain_rgb(picture) else _to_rgb(picture)
        seen = _upright(seen, _orientation(picture))
        seen.info = {}
        return seen
    except MemoryError:
        raise RequestError(f"{name} is {picture.width} x {picture.height}: there is no memory to decode it.") from None
    except Exception:  # as above
        raise RequestError(f"{name} can't be read: its data are broken or cut off.") from None


def decode(data: bytes, name: str = "the picture", max_pixels: int = MOST_PIXELS) -> Image.Image:
    """An encoded picture as RGB, as `as_seen` says.

    Raises:
        RequestError: it can't be read.
    """
    return as_seen(open_picture(data, name, max_pixels), name, may_change=True)


def _is_plain_rgb(picture: Image.Image) -> bool:
    return picture.mode == "RGB" and not picture.has_transparency_data


def _to_rgb(picture: Image.Image) -> Image.Image:
    if is_deep_grey(picture):
        grey, mask = to_eight_bits(picture)
        return _on_white(Image.merge("LA", (grey, mask)).convert("RGBA")) if mask else grey.convert("RGB")
    if picture.has_transparency_data:
        return _on_white(_with_alpha(picture))
    rgb = picture.convert("RGB")
    return rgb if rgb is not picture else picture.copy()


def _with_alpha(picture: Image.Image) -> Image.Image:
    """[RGBA] with the picture's own transparency."""
    if picture.mode == "La":  # Pillow goes from it to LA only
        picture = picture.convert("LA")
    key = picture.info.get("transparency")
    if picture.format == "PNG" and key is not None and picture.mode in ("L", "RGB"):
        # Pillow widens or narrows the pixels to 8 bits, and leaves the transparent colour as it stands in the file.
        picture = picture.copy()
        picture.info["transparency"] = _png_key(key, picture.info.get(_DEPTH, 8))
    return picture.convert("RGBA")


def _png_key(key: int | tuple[int, ...], depth: int) -> int | tuple[int, ...]:
    def narrow(value: int) -> int:
        return value >> 8 if depth == 16 else value * 255 // ((1 << depth) - 1)

    return tuple(map(narrow, key)) if isinstance(key, tuple) else narrow(key)


def _on_white(picture: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture


def _orientation(picture: Image.Image) -> int:
    """EXIF's, 1 to 8. Read after the pixels: a PNG may have it behind them, and a TIFF is turned by Pillow itself."""
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a viewer shows a picture whose EXIF is broken as it lies
        return 1
    return value if isinstance(value, int) else 1


def _what_it_is(data: bytes) -> str:
    head = data[:1024]
    for is_it, what in _FOREIGN:
        if is_it(head):
            return what
    if head.startswith((_PNG, b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM")):
        return "can't be read: its data are broken or cut off"
    return "is in no picture format that is read here (PNG, JPEG, WebP, GIF, BMP, TIFF, ICO, AVIF, JPEG 2000, PNM, TGA)"
