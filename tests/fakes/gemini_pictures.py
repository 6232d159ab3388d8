"""Makes small pictures that carry a number in their pixels, and checks that bytes are such a picture.

The number is a grid of 8 x 6 black and white blocks: 32 bits of the number and 16 bits of checksum. The grid fills the picture,
so it survives every codec, a change of size and a conversion to PNG. It can't be read if the picture is rotated or mirrored, so
tests notice that.
"""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pillow_heif
from PIL import Image

COLUMNS, ROWS = 8, 6
#: With the salt, an all-black and an all-white picture are no numbers. Their CRCs without it end in 0xDF1C and 0xFFFF.
SALT = 0x5A5A
#: A block with a grey level (of 255) between these is neither black nor white. A picture with such a block carries no number.
DARK, LIGHT = 96, 160

NATIVE = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "HEIC": "image/heic", "HEIF": "image/heif"}
#: Major brands of HEIF files (ISO 23008-12 annex B). AVIF's brands are left out, because Gemini does not accept AVIF.
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
HEIF_BRANDS = HEIC_BRANDS | {b"mif1", b"msf1"}


def numbered_picture(
    n: int,
    *,
    format: str = "PNG",  # noqa: A002  Pillow's own name for it
    size: tuple[int, int] = (64, 48),
    pad_to: int | None = None,
) -> bytes:
    """A picture file that carries `n` (0 to 2**32 - 1). The same arguments give the same bytes.

    `format`: PNG, JPEG, WEBP, HEIC, HEIF, BMP, GIF, TIFF or AVIF. `size`: width and height in pixels, at least 32 x 24. `pad_to`:
    pad the file to this number of bytes with noise outside the pixels; a larger file stays as it is.
    """
    if size[0] < COLUMNS * 4 or size[1] < ROWS * 4:
        raise ValueError(f"a numbered picture is at least {COLUMNS * 4} x {ROWS * 4}, not {size}")
    blocks = np.unpackbits(np.frombuffer(_word(n), np.uint8)).reshape(ROWS, COLUMNS) * np.uint8(255)
    image = Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).convert("RGB")
    data = _encoded(image, format)
    missing = (pad_to or 0) - len(data)
    return data if missing <= 0 else _padded(data, format, random.Random(n).randbytes(missing), image)


def read_number(data: bytes) -> int | None:
    """The number in a picture of any format, None if it carries none. Raises an exception if the bytes do not decode."""
    return _number(_pixels(data, None))


def prove(data: bytes, mime: str) -> int | None:
    """The number in a picture of exactly this type, None if it carries none. Raises ValueError for other bytes.

    HEIC and HEIF are accepted for each other, because HEIC is a kind of HEIF and its files may have either brand.
    """
    found = sniff(data)
    if found is None:
        raise ValueError("does not begin like any type Gemini takes")
    if found != mime and {found, mime} != {"image/heic", "image/heif"}:
        raise ValueError(f"a picture declared {mime} is {found}")
    try:
        return _number(_pixels(data, mime.removeprefix("image/").upper()))
    except Exception as error:  # decoders raise nearly anything: OSError, SyntaxError, struct.error, MemoryError
        raise ValueError(f"does not decode as {mime}: {error!r}") from error


def sniff(data: bytes) -> str | None:
    """The type that the first bytes show, if it is one of Gemini's five types."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return "image/heic" if data[8:12] in HEIC_BRANDS else "image/heif"
    return None


def _word(n: int) -> bytes:
    number = n.to_bytes(4, "big")
    return number + ((zlib.crc32(number) & 0xFFFF) ^ SALT).to_bytes(2, "big")


def _pixels(data: bytes, kind: str | None) -> Image.Image:
    """The whole picture in grey. The HEIF plug-in is not registered, because that would change Pillow for the code under test."""
    if kind in ("HEIC", "HEIF") or (kind is None and sniff(data) in ("image/heic", "image/heif")):
        return pillow_heif.open_heif(io.BytesIO(data)).to_pillow().convert("L")
    with Image.open(io.BytesIO(data), formats=[kind] if kind else None) as image:
        return image.convert("L")


def _number(grey: Image.Image) -> int | None:
    cells = np.asarray(grey.resize((COLUMNS * 4, ROWS * 4), Image.Resampling.BOX), np.float32)
    levels = cells.reshape(ROWS, 4, COLUMNS, 4)[:, 1:3, :, 1:3].mean(axis=(1, 3))  # the middle of each block
    if ((levels > DARK) & (levels < LIGHT)).any():
        return None
    word = np.packbits(levels >= LIGHT).tobytes()
    n = int.from_bytes(word[:4], "big")
    return n if word == _word(n) else None


def _encoded(image: Image.Image, kind: str, **options: bytes) -> bytes:
    file = io.BytesIO()
    if kind in ("HEIC", "HEIF"):
        pillow_heif.from_pillow(image).save(file, quality=80, enc_params={"preset": "ultrafast"})
        data = file.getvalue()
        return data[:8] + (b"mif1" if kind == "HEIF" else b"heic") + data[12:]
    quality = {"JPEG": {"quality": 90}, "WEBP": {"quality": 90, "method": 0}, "AVIF": {"quality": 90, "speed": 10}}
    image.save(file, format=kind, **quality.get(kind, {}), **options)
    return file.getvalue()


def _padded(data: bytes, kind: str, noise: bytes, image: Image.Image) -> bytes:
    """The same picture with `noise` in a part of the file without pixels. The frame of that part counts towards the noise."""
    if kind == "PNG":  # an ancillary, private, safe-to-copy chunk before IEND (12 bytes)
        body = b"npAd" + noise[12:]
        return data[:-12] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + data[-12:]
    if kind == "JPEG":  # comment segments after SOI, each of at most 65,533 bytes
        parts = (noise[at + 4 : at + 65_537] for at in range(0, len(noise), 65_537))
        return data[:2] + b"".join(b"\xff\xfe" + struct.pack(">H", len(part) + 2) + part for part in parts) + data[2:]
    if kind == "GIF":  # a comment extension before the trailer, in blocks of at most 255 bytes
        parts = (noise[at + 1 : at + 256] for at in range(3, len(noise), 256))
        return data[:-1] + b"\x21\xfe" + b"".join(bytes([len(part)]) + part for part in parts if part) + b"\x00;"
    if kind == "WEBP":  # an XMP chunk changes the file to the extended format, which adds 26 bytes
        return _encoded(image, kind, xmp=noise[26:])
    if kind in ("HEIC", "HEIF", "AVIF"):  # a free box of ISO 14496-12
        return data + struct.pack(">I", max(len(noise), 8)) + b"free" + noise[8:]
    if kind == "BMP":  # bytes behind the pixels, counted in the header's file size
        return data[:2] + struct.pack("<I", len(data) + len(noise)) + data[6:] + noise
    return data + noise  # TIFF: no offset refers to bytes at the end
