"""Finds an image's format from its bytes, never from a file name or declared type. Pure, standard library only."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import Literal

from pipeline.types import ItemCode, Refused

#: The formats that can go to the model as received, with their MIME types.
NATIVE_FORMATS: Mapping[str, str] = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WebP": "image/webp",
    "HEIC": "image/heic",
    "HEIF": "image/heif",
}

#: The formats that are converted to PNG. Each is recognized by its bytes and decodes from memory, without a helper program.
CONVERTED_FORMATS = (
    "AVIF",
    "BLP",
    "BMP",
    "CUR",
    "DCX",
    "DDS",
    "FITS",
    "FLI",
    "FTEX",
    "GBR",
    "GIF",
    "HEIF sequence",
    "ICNS",
    "ICO",
    "JPEG 2000",
    "JPEG XL",
    "MSP",
    "PCD",
    "PCX",
    "PIXAR",
    "PPM",
    "PSD",
    "QOI",
    "SGI",
    "SUN",
    "TGA",
    "TIFF",
    "XBM",
    "XPM",
)

_TAKEN = "Send it as PNG, JPEG, WebP, HEIC or HEIF."
_PAGES = "is not an image format we take: send each page as a picture."
_RENDER = "is a drawing, not an image format we take: send it rendered, as PNG."
_EXPORT = "is not an image format we take: export it as PNG or JPEG."
_FRAMES = "is not an image format we take: send the frames you mean as pictures."
_UNPACK = "is not an image: send the pictures or pages in it one by one."

#: The error detail for each format that is recognized but not accepted.
_REFUSED: Mapping[str, str] = {
    "ARCHIVE": f"An archive {_UNPACK}",
    "BASE64": "This is base64 text, not an image: it was encoded twice, or stored as text.",
    "CAMERA RAW": "Camera raw is not an image format we take: export it as JPEG, or send the JPEG the camera made of it.",
    "DICOM": f"DICOM {_EXPORT}",
    "DJVU": f"DjVu {_PAGES}",
    "EMF": f"EMF {_RENDER}",
    "EPS": f"PostScript (EPS) {_RENDER}",
    "EXR": f"OpenEXR {_EXPORT}",
    "HDR": f"Radiance HDR {_EXPORT}",
    "HTML": "This is an HTML page, not an image: check that the address leads to the image itself.",
    "JPEG XR": f"JPEG XR {_EXPORT}",
    "OFFICE": f"An Office document {_UNPACK}",
    "PAM": f"PAM or colour PFM {_EXPORT}",
    "PDF": f"PDF {_PAGES}",
    "PSB": f"PSB (large Photoshop document) {_EXPORT}",
    "SVG": f"SVG {_RENDER}",
    "TEXT": "This is text, not an image.",
    "VIDEO": f"Video {_FRAMES}",
    "WMF": f"WMF {_RENDER}",
    "XCF": f"XCF (GIMP) {_EXPORT}",
    "XML": "This is XML text, not an image.",
    "ZIP": f"A ZIP archive or Office document {_UNPACK}",
}

#: The bytes at the start of a format's files. Functions below recognize formats whose first bytes are less distinctive.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xb1\x68\xde\x3a", "DCX"),
    (b"\x59\xa6\x6a\x95", "SUN"),
    (b"8BPS\x00\x01", "PSD"),
    (b"8BPS\x00\x02", "PSB"),
    (b"/* XPM */", "XPM"),
    (b"DDS ", "DDS"),
    (b"BLP1", "BLP"),
    (b"BLP2", "BLP"),
    (b"FTEX", "FTEX"),
    (b"\x80\xe8\x00\x00", "PIXAR"),
    (b"DanM", "MSP"),
    (b"LinS", "MSP"),
    (b"icns", "ICNS"),
    (b"qoif", "QOI"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"IIRO", "CAMERA RAW"),  # Olympus
    (b"IIRS", "CAMERA RAW"),
    (b"MMOR", "CAMERA RAW"),
    (b"IIU\x00", "CAMERA RAW"),  # Panasonic
    (b"FUJIFILMCCD-RAW", "CAMERA RAW"),
    (b"FOVb", "CAMERA RAW"),  # Sigma
    (b"\x00MRM", "CAMERA RAW"),  # Minolta
    (b"II\x1a\x00\x00\x00HEAPCCDR", "CAMERA RAW"),  # Canon CRW, older than its raw files based on TIFF
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\x01\x00\x09\x00\x00\x03", "WMF"),
    (b"\x76\x2f\x31\x01", "EXR"),
    (b"#?RADIANCE", "HDR"),
    (b"#?RGBE", "HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"gimp xcf", "XCF"),
    (b"AT&TFORM", "DJVU"),
    (b"PK\x03\x04", "ZIP"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "OFFICE"),
    (b"7z\xbc\xaf\x27\x1c", "ARCHIVE"),
    (b"Rar!\x1a\x07", "ARCHIVE"),
    (b"\x1f\x8b\x08", "ARCHIVE"),
    (b"\x1a\x45\xdf\xa3", "VIDEO"),  # WebM, Matroska
    (b"\x00\x00\x01\xba", "VIDEO"),  # MPEG
    (b"\x00\x00\x01\xb3", "VIDEO"),
    (b"FLV\x01", "VIDEO"),
)

_MAGIC_BY_FIRST_BYTE = {first: [entry for entry in _MAGIC if entry[0][0] == first] for first in {entry[0][0] for entry in _MAGIC}}

#: (offset, bytes there, format). They are tried only after the checks of the first bytes have found nothing.
_MAGIC_WITHIN: tuple[tuple[int, bytes, str], ...] = (
    (20, b"GIMP", "GBR"),
    (40, b" EMF", "EMF"),
    (128, b"DICM", "DICOM"),
    (257, b"ustar", "ARCHIVE"),
    (2048, b"PCD_", "PCD"),
)

_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis"))
_HEIF_SEQUENCE_BRANDS = frozenset((b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
#: The sizes of the header that follows a bitmap's file header: OS/2 1 and 2, and Windows 3 to 5.
_BMP_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_TEXT_HEAD = 4096  # bytes: XML comments and doctypes may stand before <svg>
_PDF_HEAD = 1024  # bytes: readers look for %PDF- this far in
_MAX_IFD_ENTRIES = 4096
_XBM = re.compile(rb"\s*(?:/\*[^*]*\*/\s*)*#define[ \t]+\S*_width[ \t]+\d")
_BASE64_OF_IMAGE = re.compile(r"data:image/|ivborw0kggo|/9j/|r0lgodlh|uklgr")  # PNG, JPEG, GIF and RIFF in lower case


def sniff(data: bytes) -> str | Refused:
    """The format of `data`, one of NATIVE_FORMATS or CONVERTED_FORMATS, or the refusal. It reads only a few thousand bytes."""
    if not data:
        return Refused(code=ItemCode.IMAGE_EMPTY, detail="The image is empty (0 bytes).")
    kind = _kind(data)
    if kind in NATIVE_FORMATS or kind in CONVERTED_FORMATS:
        return kind
    told = _REFUSED.get(kind, f"The first bytes ({data[:8].hex(' ')}) are of no image format we know. {_TAKEN}")
    return Refused(code=ItemCode.UNSUPPORTED_FORMAT, detail=told)


def _kind(data: bytes) -> str:
    for magic, kind in _MAGIC_BY_FIRST_BYTE.get(data[0], ()):
        if data.startswith(magic):
            return kind
    return next((found for look in _LOOKS if (found := look(data))), "")


def _jpeg(data: bytes) -> str:
    return "JPEG" if data.startswith(b"\xff\xd8\xff") else ""


def _riff(data: bytes) -> str:
    if not data.startswith(b"RIFF"):
        return ""
    return {b"WEBP": "WebP", b"AVI ": "VIDEO"}.get(data[8:12], "")


def _iso_media(data: bytes) -> str:
    """Recognizes HEIF, AVIF and other formats with the boxes of ISO 14496-12, by the brands in the first box."""
    if data[4:8] in (b"moov", b"mdat", b"wide"):  # old QuickTime files have no box with brands
        return "VIDEO"
    if data[4:8] != b"ftyp":
        return ""
    size = min(int.from_bytes(data[:4], "big"), 256)  # bytes: 60 brands are enough
    major = data[8:12]
    brands = {major} | {data[at : at + 4] for at in range(16, min(size, len(data)) - 3, 4)}
    if major in _AVIF_BRANDS or (major in (b"mif1", b"msf1") and brands & _AVIF_BRANDS):
        return "AVIF"
    if major in _HEIC_BRANDS:
        return "HEIC"
    if major in _HEIF_SEQUENCE_BRANDS:
        return "HEIF sequence"
    if major == b"mif1":
        return "HEIF"
    if major == b"crx ":
        return "CAMERA RAW"
    return "" if b"mif1" in brands else "VIDEO"


def _tiff(data: bytes) -> str:
    if data[:4] in (b"II+\x00", b"MM\x00+"):  # BigTIFF
        return "TIFF"
    if data[:4] not in (b"II*\x00", b"MM\x00*"):
        return ""
    if data[8:11] == b"CR\x02" or data[8:12] == b"IIII":  # Canon, Phase One
        return "CAMERA RAW"
    return "CAMERA RAW" if _holds_raw(data) else "TIFF"


def _holds_raw(data: bytes) -> bool:
    """Whether a TIFF holds camera raw (DNG, NEF, ARW, PEF, SRW ...), by the tags of its first directory.

    It is raw if it has a DNGVersion (50706), if tag 262 is a colour-filter array (32803) or linear raw (34892), or if the first
    directory holds only a preview (bit 0 of 254) of a picture in SubIFDs (330). In a pyramid TIFF the first directory holds the
    full picture.
    """
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"

    def number(at: int, size: int) -> int:  # gives 0 after the end of the data
        return int.from_bytes(data[at : at + size], order)

    directory = number(4, 4)
    tags: dict[int, int] = {}
    for entry in range(min(number(directory, 2), _MAX_IFD_ENTRIES)):
        at = directory + 2 + 12 * entry
        tags[number(at, 2)] = number(at + 8, 2 if number(at + 2, 2) == 3 else 4)  # type 3 is a 16-bit value
    preview_only = bool(tags.get(254, 0) & 1) and 330 in tags
    return 50706 in tags or tags.get(262) in (32803, 34892) or preview_only


def _bmp(data: bytes) -> str:
    return "BMP" if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS else ""


def _ico(data: bytes) -> str:
    # A TGA may begin like an icon. But an icon has at least one entry, and each entry has a reserved byte that is zero.
    if data[4:6] == b"\x00\x00" or data[9:10] != b"\x00":
        return ""
    return {b"\x00\x00\x01\x00": "ICO", b"\x00\x00\x02\x00": "CUR"}.get(data[:4], "")


def _pnm(data: bytes) -> str:
    if data[2:3] not in (b" ", b"\t", b"\n", b"\r", b"#"):
        return ""
    if data[:2] in (b"P7", b"PF"):
        return "PAM"
    return "PPM" if data[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf") else ""


def _sgi(data: bytes) -> str:
    # The header's fields are storage (0 or 1), bytes a sample (1 or 2) and dimensions (1 to 3).
    return "SGI" if data.startswith(b"\x01\xda") and data[2:3] <= b"\x01" and data[3:6] in _SGI_SHAPES else ""


_SGI_SHAPES = frozenset(bytes((size, 0, dimensions)) for size in (1, 2) for dimensions in (1, 2, 3))


def _pcx(data: bytes) -> str:
    return "PCX" if len(data) >= 128 and data[0] == 10 and data[1] in (0, 2, 3, 5) and data[2:4] in _PCX_SHAPES else ""


_PCX_SHAPES = frozenset(bytes((1, bits)) for bits in (1, 2, 4, 8))


def _fli(data: bytes) -> str:
    return "FLI" if data[4:6] in (b"\x11\xaf", b"\x12\xaf") and data[14:16] in (b"\x00\x00", b"\x03\x00") else ""


def _jpeg_xl_stream(data: bytes) -> str:
    return "JPEG XL" if data.startswith(b"\xff\x0a") else ""


def _tga(data: bytes) -> str:
    # TGA has no magic bytes. Version 2 has a footer. Version 1 is recognized by valid header fields and a sufficient length.
    return "TGA" if data.endswith(b"TRUEVISION-XFILE.\x00") or _is_tga_1(data) else ""


def _is_tga_1(data: bytes) -> bool:
    if len(data) <= 18 or (data[1], data[2]) not in _TGA_KINDS:
        return False
    first, colours, colour_bits = struct.unpack_from("<HHB", data, 3)
    width, height, bits, flags = struct.unpack_from("<HHBB", data, 12)
    if bits not in _TGA_KINDS[data[1], data[2]] or flags >= 64 or flags & 15 > 8 or not (width and height):
        return False
    if data[1] and not (colours and first + colours <= 65536 and colour_bits in {15, 16, 24, 32}):
        return False
    if not data[1] and (first or colours or colour_bits not in {0, 15, 16, 24, 32}):
        return False
    pixel = (bits + 7) // 8
    pixels = width * height * pixel if data[2] < 8 else -(-width * height // 128) * (1 + pixel)  # one run has 128 pixels at most
    return bool(len(data) >= 18 + data[0] + int(colours) * ((colour_bits + 7) // 8) + int(pixels))


#: (1 if there is a palette, picture type) → the allowed bits a pixel.
_TGA_KINDS = {
    (1, 1): (8,),
    (1, 9): (8,),
    (0, 2): (15, 16, 24, 32),
    (0, 10): (15, 16, 24, 32),
    (0, 3): (8, 16),
    (0, 11): (8, 16),
}


def _within(data: bytes) -> str:
    kind = next((kind for offset, magic, kind in _MAGIC_WITHIN if data.startswith(magic, offset)), "")
    # "GIMP" may stand there in a comment too. A brush has its version in front of it.
    return "" if kind == "GBR" and data[4:8] not in (b"\0\0\0\x01", b"\0\0\0\x02") else kind


def _text(data: bytes) -> str:
    if b"%PDF-" in data[:_PDF_HEAD]:
        return "PDF"
    if _XBM.match(data[:_TEXT_HEAD]):
        return "XBM"
    head = _as_text(data[:_TEXT_HEAD])
    if not head:
        return ""
    if head.startswith("<"):
        if "<!doctype html" in head or "<html" in head:
            return "HTML"
        if "<svg" in head:
            return "SVG"
        if any(tag in head for tag in ("<head", "<body", "<script", "<title")):
            return "HTML"
    if head.startswith("<?xml"):
        return "XML"
    return "BASE64" if _BASE64_OF_IMAGE.match(head) else "TEXT"


def _as_text(head: bytes) -> str:
    """`head` as text in lower case without leading white space; empty if it is not text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head.decode("utf-16", "ignore")
        kept = sum(map(str.isascii, text)) * 2  # counts ASCII only, because a page in UTF-16 is mostly markup
    elif any(byte < 9 or 13 < byte < 32 for byte in head):
        return ""
    else:
        text = head.decode("utf-8-sig", "ignore")
        kept = len(text.encode())  # without letters of older encodings, and without a character that the cut splits
    return text.lstrip().lower() or "(white space)" if kept > 0.75 * len(head) - 4 else ""


_LOOKS: tuple[Callable[[bytes], str], ...] = (
    _jpeg,
    _riff,
    _iso_media,
    _tiff,
    _bmp,
    _ico,
    _pnm,
    _sgi,
    _pcx,
    _fli,
    _jpeg_xl_stream,
    _tga,
    _within,
    _text,
)
