"""Reads the DDS textures that Pillow does not: any bit masks, uncompressed pixel formats, and other names for known blocks."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

from pipeline.decode.bmp import masked
from pipeline.decode.depth import as_bytes
from pipeline.decode.wire import MAX_PIXELS, MAX_SIDE
from pipeline.types import ItemCode, Refused

_ALPHA_PIXELS, _ALPHA, _FOURCC, _RGB, _LUMINANCE = 0x1, 0x2, 0x4, 0x40, 0x20000
#: Codes whose blocks have the layout of another code that Pillow knows.
_SAME_BLOCKS = {b"DXT2": b"DXT3", b"DXT4": b"DXT5", b"BC4S": b"BC4U"}
_SAME_NUMBERS = {72: 71, 75: 74, 78: 77, 81: 80}
#: Uncompressed pixels, by code and by DXGI number: sample type, samples a pixel, and the places of red, green, blue and alpha.
_PLAIN: dict[int, tuple[str, int, tuple[int, ...]]] = {
    36: ("<u2", 4, (0, 1, 2, 3)),
    111: ("<f2", 1, (0,)),
    113: ("<f2", 4, (0, 1, 2, 3)),
    114: ("<f4", 1, (0,)),
    116: ("<f4", 4, (0, 1, 2, 3)),
}
_DXGI: dict[int, tuple[str, int, tuple[int, ...]]] = {
    2: ("<f4", 4, (0, 1, 2, 3)),
    6: ("<f4", 3, (0, 1, 2)),
    10: ("<f2", 4, (0, 1, 2, 3)),
    11: ("<u2", 4, (0, 1, 2, 3)),
    41: ("<f4", 1, (0,)),
    54: ("<f2", 1, (0,)),
    56: ("<u2", 1, (0,)),
    61: ("u1", 1, (0,)),
    65: ("u1", 1, (0,)),
    87: ("u1", 4, (2, 1, 0, 3)),
    88: ("u1", 4, (2, 1, 0)),
    91: ("u1", 4, (2, 1, 0, 3)),
    93: ("u1", 4, (2, 1, 0)),
}
#: Packed pixels, by DXGI number: bits a pixel, and the masks of red, green, blue and alpha.
_PACKED = {
    24: (32, (0x3FF, 0xFFC00, 0x3FF00000, 0xC0000000)),
    85: (16, (0xF800, 0x7E0, 0x1F, 0)),
    86: (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    115: (16, (0xF00, 0xF0, 0xF, 0xF000)),
}


def open_dds(data: bytes) -> Image.Image | bytes | Refused:
    """The largest picture, or the bytes for Pillow to open. Raises ValueError or struct.error if the file is damaged."""
    height, width = struct.unpack_from("<2I", data, 12)
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise Image.DecompressionBombError
    flags, code, bits = struct.unpack_from("<I4sI", data, 80)
    masks = struct.unpack_from("<4I", data, 92)
    size = (height, width)
    if bits == 8 and flags & _LUMINANCE and not masks[0] & 0xFF:
        masks = (0xFF, 0xFF, 0xFF, 0)  # some writers give the mask of a pixel of 32 bits
    if flags & _FOURCC:
        return _by_code(data, code, size)
    if flags & _LUMINANCE and masks[0] and bits in {8, 16}:
        luminance = (masks[0], masks[0], masks[0], masks[3] if flags & _ALPHA_PIXELS else 0)
        return _packed(data[128:], size, bits, luminance)
    if flags & _RGB and bits in {16, 24, 32}:
        return _packed(data[128:], size, bits, (*masks[:3], masks[3] if flags & _ALPHA_PIXELS else 0))
    if flags & _ALPHA and bits == 8:
        return _plain(data[128:], size, ("u1", 1, (0,)))
    return data


def _by_code(data: bytes, code: bytes, size: tuple[int, int]) -> Image.Image | bytes:
    if code in _SAME_BLOCKS:
        return data[:84] + _SAME_BLOCKS[code] + data[88:]
    if code != b"DX10":
        number = int.from_bytes(code, "little")
        return _plain(data[128:], size, _PLAIN[number]) if number in _PLAIN else data
    number = int.from_bytes(data[128:132], "little")
    if number in _SAME_NUMBERS:
        return data[:128] + struct.pack("<I", _SAME_NUMBERS[number]) + data[132:]
    if number in _DXGI:
        return _plain(data[148:], size, _DXGI[number])
    return _packed(data[148:], size, *_PACKED[number]) if number in _PACKED else data


def unread_dds(data: bytes) -> Refused:
    """The refusal of a DDS that neither this module nor Pillow reads."""
    code = data[84:88]
    name = code.decode("ascii") if code.isalnum() else f"of pixel format {int.from_bytes(code, 'little')}"
    if code == b"DX10":
        name = f"of DXGI format {int.from_bytes(data[128:132], 'little')}"
    return Refused(code=ItemCode.UNSUPPORTED_FORMAT, detail=f"A DDS {name} cannot be read here: save it as PNG or JPEG.")


def _plain(body: bytes, size: tuple[int, int], layout: tuple[str, int, tuple[int, ...]]) -> Image.Image:
    kind, samples, order = layout
    values = np.frombuffer(body, kind, size[0] * size[1] * samples).reshape(*size, samples)[..., list(order)]
    bits = values.dtype.itemsize * 8
    colours = as_bytes(values[..., :3], bits=bits)
    if values.shape[2] == 4:
        colours = np.concatenate([colours, as_bytes(values[..., 3:], bits=bits, stretch=False)], axis=2)
    return Image.fromarray(np.ascontiguousarray(colours[..., 0] if len(order) == 1 else colours))


def _packed(body: bytes, size: tuple[int, int], bits: int, masks: tuple[int, ...]) -> Image.Image:
    raw = np.frombuffer(body, np.uint8, size[0] * size[1] * (bits // 8)).reshape(*size, bits // 8)
    padded = np.zeros((*size, 4), np.uint8)
    padded[..., : bits // 8] = raw
    values = padded.view("<u4")[..., 0]
    return Image.fromarray(np.stack([masked(values, mask) for mask in (masks if masks[3] else masks[:3])], axis=2))
