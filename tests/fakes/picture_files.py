"""Makes small files of every format that the service accepts, and of some that it refuses."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from functools import cache
from typing import Any

import pillow_heif
import pylibjxl
from PIL import Image

WIDTH, HEIGHT = 48, 32

pillow_heif.register_heif_opener()
pylibjxl.register_pillow()

# cjxl 0.7 made these files, because pylibjxl cannot write such files. The first has three frames (red, blue, lime) of 20 x 10
# pixels. The second is a picture of 64 x 32. Its upper left quarter is red, its upper right quarter blue, and a tag turns it to
# the right.
ANIMATED_JPEG_XL = base64.b64decode(
    "/wpIcEEAFhSXBAgIoAIAAKAASxIJEhg4BEFIgQ0ZY/A+MU6cGOPEGPMAiA1/ABRyux9P3j8zaWjTPggIoAIAAKwASxIJEhg4BEFIgQ0ZY/A+Mc5MnDgxxjwAYCOQCe6p3ds1Igvc7QMYNPJeHwgIoEIAAHgASxIJEhg4BEFIgQ0ZYzBxYox5AMaHGABi9j00pO8D"
)
TURNED_JPEG_XL = base64.b64decode(
    "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAA/anhsY/8Kxy0QUFwSCAIBAKQASzhpmMqD9ysoCIA6f2IMygvEAABoSAHQO+7fX0jg7x8a1F8L6w8bhDs="
)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    body = io.BytesIO()
    image.save(body, kind, **options)
    return body.getvalue()


def photo(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A picture with red increasing to the right and green downwards. All corners differ, so every quarter turn is visible."""
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            image.putpixel((x, y), (x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), 90))
    return image


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "lime")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


@cache
def native() -> dict[str, bytes]:
    image = photo()
    return {
        "PNG": encoded(image, "PNG"),
        "JPEG": encoded(image, "JPEG", quality=90),
        "WebP": encoded(image, "WEBP", lossless=True),
        "HEIC": encoded(image, "HEIF"),
        "HEIF": with_brand(encoded(image, "HEIF"), b"mif1"),
    }


@cache
def converted() -> dict[str, bytes]:
    """One file of each format that the service converts to PNG."""
    image = photo()
    grey, palette, line = image.convert("L"), image.quantize(32), image.convert("1")
    pcx, pixels = encoded(palette, "PCX"), image.tobytes()
    return {
        "AVIF": encoded(image, "AVIF"),
        "BLP": encoded(palette, "BLP"),
        "BMP": encoded(image, "BMP"),
        "CUR": b"\0\0\2\0" + encoded(image.resize((32, 32)), "ICO", sizes=[(32, 32)], bitmap_format="bmp")[4:],
        "DCX": struct.pack("<4I", 0x3ADE68B1, 16, 0, 0) + pcx,
        "DDS": encoded(image.convert("RGBA"), "DDS"),
        "FITS": fits(grey),
        "FLI": fli(grey),
        "FTEX": b"FTEX" + struct.pack("<8i", 0, WIDTH, HEIGHT, 1, 1, 1, 32, len(pixels)) + pixels,
        "GBR": struct.pack(">5I4sI", 29, 2, WIDTH, HEIGHT, 1, b"GIMP", 10) + b"\0" + grey.tobytes(),
        "GIF": encoded(palette, "GIF"),
        "HEIF sequence": with_brand(encoded(image, "HEIF"), b"hevc"),
        "ICNS": encoded(image.resize((64, 64)), "ICNS"),
        "ICO": encoded(image.resize((32, 32)), "ICO", sizes=[(32, 32)]),
        "JPEG 2000": encoded(image, "JPEG2000"),
        "JPEG XL": encoded(image, "JXL", lossless=True),
        "MSP": encoded(line, "MSP"),
        "PCD": pcd(),
        "PCX": pcx,
        "PIXAR": pixar(image),
        "PPM": encoded(image, "PPM"),
        "PSD": psd(image),
        "QOI": qoi(image),
        "SGI": encoded(image, "SGI"),
        "SUN": struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 24, WIDTH * HEIGHT * 3, 1, 0, 0) + image.tobytes("raw", "BGR"),
        "TGA": encoded(image, "TGA"),
        "TIFF": encoded(image, "TIFF", compression="tiff_lzw"),
        "XBM": encoded(line, "XBM"),
        "XPM": xpm(grey),
    }


def with_brand(heif: bytes, brand: bytes) -> bytes:
    return heif[:8] + brand + heif[12:]


def fli(grey: Image.Image) -> bytes:
    """An FLI file with one frame: a palette of greys and an uncompressed picture."""
    colours = struct.pack("<H", 1) + bytes((0, 0)) + bytes(level for step in range(256) for level in (step, step, step))
    chunks = [struct.pack("<IH", 6 + len(body), kind) + body for kind, body in ((4, colours), (16, grey.tobytes()))]
    frame = struct.pack("<IHH8x", 16 + sum(map(len, chunks)), 0xF1FA, len(chunks)) + b"".join(chunks)
    head = struct.pack("<IHHHHHHI", 128 + len(frame), 0xAF12, 1, *grey.size, 8, 0, 70)
    return head.ljust(128, b"\0") + frame


def psd(image: Image.Image) -> bytes:
    """A PSD file with only the flattened picture: no layers, no resources, no compression."""
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, image.height, image.width, 8, 3)
    return head + struct.pack(">III", 0, 0, 0) + struct.pack(">H", 0) + b"".join(band.tobytes() for band in image.split())


def fits(grey: Image.Image) -> bytes:
    """A FITS file with one unit of 8 bits per pixel."""
    cards = {"SIMPLE": "T", "BITPIX": 8, "NAXIS": 2, "NAXIS1": grey.width, "NAXIS2": grey.height}
    head = "".join(f"{name:8}= {value:>20}".ljust(80) for name, value in cards.items()) + "END".ljust(80)
    return head.ljust(2880).encode() + grey.tobytes().ljust(2880, b"\0")


def pixar(image: Image.Image) -> bytes:
    """A PIXAR file: uncompressed RGB after a header of 1024 bytes."""
    head = bytearray(b"\x80\xe8\0\0".ljust(1024, b"\0"))
    struct.pack_into("<HH", head, 416, image.height, image.width)
    struct.pack_into("<HH", head, 424, 14, 2)
    return bytes(head) + image.tobytes()


def pcd() -> bytes:
    """A PhotoCD file with a base picture, whose size is fixed. It is dark at the top and light at the bottom."""
    head = bytes(2048) + b"PCD_OPA".ljust(2048, b"\0")
    rows = (bytes((40 + row // 2,)) * 1536 + bytes((128,)) * 768 for row in range(256))
    return head.ljust(96 * 2048, b"\0") + b"".join(rows)


def qoi(image: Image.Image) -> bytes:
    """A QOI file that stores every pixel as RGB, without compression."""
    pixels = image.tobytes()
    body = b"".join(b"\xfe" + pixels[at : at + 3] for at in range(0, len(pixels), 3))
    return b"qoif" + struct.pack(">IIBB", *image.size, 3, 0) + body + bytes(7) + b"\x01"


def xpm(grey: Image.Image) -> bytes:
    """An XPM file with black and white only."""
    pixels = grey.point(lambda value: 255 * (value > 127)).tobytes()
    rows = [pixels[at : at + grey.width] for at in range(0, len(pixels), grey.width)]
    lines = [f'"{grey.width} {grey.height} 2 1"', '". c #000000"', '"X c #FFFFFF"']
    lines += ['"' + "".join("X" if value else "." for value in row) + '"' for row in rows]
    return ("/* XPM */\nstatic char *picture[] = {\n" + ",\n".join(lines) + "\n};\n").encode()


def jpeg_of_many_scans(scans: int) -> bytes:
    """A progressive JPEG that repeats its last scan until it has `scans` scans."""
    data = encoded(photo(16, 16), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda") + 1) + data[-2:]


def png_of(width: int, height: int) -> bytes:
    """A valid, black, 1-bit PNG of any size. The file is about a thousand times smaller than its pixels."""
    body = zlib.compress(bytes(height * (1 + (width + 7) // 8)), 9)
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
    chunks = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(entries: list[tuple[int, int, int]], *, order: str = "<") -> bytes:
    """A TIFF with one directory and nothing else. `entries`: (tag, type, value) of each entry."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    body = b"".join(
        struct.pack(order + "HHI", tag, kind, 1) + struct.pack(order + {3: "Hxx", 4: "I", 1: "Bxxx"}[kind], value)
        for tag, kind, value in entries
    )
    return head + struct.pack(order + "H", len(entries)) + body + bytes(4)
