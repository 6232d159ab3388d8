"""Reads the flattened picture of a PSD. Pillow misreads or refuses some depths and files with extra channels."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

from pipeline.decode.depth import as_bytes
from pipeline.decode.pixels import rgb_of_inks
from pipeline.decode.wire import MAX_PIXELS, MAX_SIDE
from pipeline.types import ItemCode, Refused

_HEADER = struct.Struct(">4sH6xHIIHH")
_BITMAP, _GREY, _INDEXED, _RGB, _CMYK, _MULTICHANNEL, _DUOTONE, _LAB = 0, 1, 2, 3, 4, 7, 8, 9
#: Colour channels by colour mode. Further channels hold transparency or saved selections.
_COLOURS = {_BITMAP: 1, _GREY: 1, _INDEXED: 1, _RGB: 3, _CMYK: 4, _DUOTONE: 1, _LAB: 3}
#: Allowed bits a channel by colour mode. All other modes allow 8 and 16.
_DEPTHS = {_BITMAP: {1}, _INDEXED: {8}, _GREY: {8, 16, 32}, _RGB: {8, 16, 32}}
_RAW, _PACKBITS, _ZIP, _ZIP_DIFFERENCED = range(4)
_ICC_PROFILE = 1039


class MalformedPsd(ValueError):
    """The file ends early or contradicts itself."""


def open_psd(data: bytes) -> Image.Image | Refused:
    """The flattened picture with 8 bits a sample. Raises ValueError, or errors of numpy, zlib and Pillow, if it is damaged."""
    _, _, channels, height, width, bits, mode = _HEADER.unpack_from(data)
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise Image.DecompressionBombError
    if mode not in _COLOURS or bits not in _DEPTHS.get(mode, {8, 16}):
        said = "multichannel" if mode == _MULTICHANNEL else f"of colour mode {mode} with {bits} bits a channel"
        return Refused(code=ItemCode.UNSUPPORTED_FORMAT, detail=f"A PSD {said} cannot be read here: export it as PNG or JPEG.")
    if not (width and height and channels >= _COLOURS[mode]):
        raise MalformedPsd
    palette, at = _section(data, _HEADER.size)
    resources, at = _section(data, at)
    layers, at = _section(data, at)
    wanted = _COLOURS[mode] + (channels > _COLOURS[mode] and mode in {_RGB, _GREY, _CMYK, _LAB} and _shows_through(layers))
    planes = _planes(data, at, wanted, channels=channels, width=width, height=height, bits=bits)
    profile = _resource(resources, _ICC_PROFILE)
    image = _picture(planes, mode, palette, bits=bits, profile=profile)
    if profile:
        image.info["icc_profile"] = profile
    return image


def _section(data: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">I", data, at)
    return data[at + 4 : at + 4 + length], at + 4 + length


def _shows_through(layers: bytes) -> bool:
    """Whether the first channel after the colours is the flattened picture's transparency. A negative layer count says so."""
    if len(layers) >= 6 and struct.unpack_from(">I", layers)[0]:
        return bool(struct.unpack_from(">h", layers, 4)[0] < 0)
    # Documents of 16 and 32 bits keep their layers in a block with another name, after the mask.
    for name in (b"8BIMLr16", b"8BIMLr32", b"8BIMMt16", b"8BIMMt32", b"8BIMMtrn"):
        at = layers.find(name)
        if at >= 0 and name[4:6] == b"Mt":
            return True
        if at >= 0 and at + 14 <= len(layers):
            return bool(struct.unpack_from(">h", layers, at + 12)[0] < 0)
    return False


def _resource(resources: bytes, wanted: int) -> bytes:
    """The image resource with the number `wanted`; empty if there is none."""
    at = 0
    while resources[at : at + 4] == b"8BIM" and at + 12 <= len(resources):
        number, name = struct.unpack_from(">HB", resources, at + 4)
        at += 6 + (name + 2) // 2 * 2
        length = int.from_bytes(resources[at : at + 4])
        if number == wanted:
            return resources[at + 4 : at + 4 + length]
        at += 4 + (length + 1) // 2 * 2
    return b""


def _planes(data: bytes, at: int, wanted: int, *, channels: int, width: int, height: int, bits: int) -> list[np.ndarray]:
    """The first `wanted` channels, each of shape (height, width)."""
    (compression,) = struct.unpack_from(">H", data, at)
    row = (width * bits + 7) // 8
    body = memoryview(data)[at + 2 :]
    size = row * height
    if compression == _RAW:
        planes = [body[number * size : (number + 1) * size] for number in range(wanted)]
    elif compression == _PACKBITS:
        lengths = np.frombuffer(body, ">u2", channels * height).reshape(channels, height).sum(axis=1, dtype=np.int64)
        ends = (2 * channels * height + lengths.cumsum()).tolist()
        starts = [2 * channels * height, *ends]
        planes = [
            memoryview(Image.frombytes("L", (row, height), bytes(body[starts[number] : ends[number]]), "packbits", "L").tobytes())
            for number in range(wanted)
        ]
    elif compression in {_ZIP, _ZIP_DIFFERENCED}:
        whole = memoryview(zlib.decompressobj().decompress(body, size * channels))
        planes = [whole[number * size : (number + 1) * size] for number in range(wanted)]
    else:
        raise MalformedPsd
    if any(len(plane) < size for plane in planes):
        raise MalformedPsd
    arrays = [np.frombuffer(plane, np.uint8, size).reshape(height, row) for plane in planes]
    if bits == 1:
        return [np.unpackbits(plane, axis=1, count=width) for plane in arrays]
    if compression == _ZIP_DIFFERENCED:
        return [_summed(plane, width, bits) for plane in arrays]
    return [plane.view({8: "u1", 16: ">u2", 32: ">f4"}[bits]) for plane in arrays]


def _summed(plane: np.ndarray, width: int, bits: int) -> np.ndarray:
    """Undoes the differences within each row. For floats they are differences of bytes, with the highest bytes first."""
    if bits == 32:
        rows = np.cumsum(plane, axis=1, dtype=np.uint8).reshape(len(plane), 4, width)
        return np.ascontiguousarray(rows.transpose(0, 2, 1)).view(">f4").reshape(len(plane), width)
    return np.cumsum(plane.view({8: "u1", 16: ">u2"}[bits]), axis=1, dtype={8: np.uint8, 16: np.uint16}[bits])


def _picture(planes: list[np.ndarray], mode: int, palette: bytes, *, bits: int, profile: bytes) -> Image.Image:
    if mode == _BITMAP:
        return Image.fromarray(planes[0] == 0)  # a set bit is ink
    if mode == _INDEXED:
        image = Image.fromarray(planes[0])
        image.putpalette(
            bytes(byte for colour in zip(palette[:256], palette[256:512], palette[512:768], strict=True) for byte in colour)
        )
        return image
    # All colour channels get the same scale. Photoshop's 16-bit values end at 32768 in memory, but at 65535 in the file.
    colours = np.stack(planes[: _COLOURS[mode]], axis=2)
    full = (colours >> (bits - 8)).astype(np.uint8) if mode == _LAB else as_bytes(colours, bits=bits)
    if mode == _CMYK:
        inks = Image.fromarray(255 - full, "CMYK")
        inks.info["icc_profile"] = profile
        image = rgb_of_inks(inks)
    elif mode == _LAB:
        full[..., 1:] ^= 0x80
        image = Image.frombytes("LAB", (full.shape[1], full.shape[0]), full.tobytes()).convert("RGB")
    else:
        image = Image.fromarray(full if mode == _RGB else full[..., 0])
    if len(planes) > _COLOURS[mode]:
        alpha = as_bytes(planes[-1], bits=bits, stretch=False)
        if mode not in {_CMYK, _LAB}:
            image = Image.fromarray(_without_white(np.asarray(image), alpha))
        image.putalpha(Image.fromarray(alpha))
    return image


def _without_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The colours of half transparent pixels without the white with which Photoshop has blended them."""
    partly = (alpha > 0) & (alpha < 255)
    share = alpha[partly].astype(np.float32) / 255
    share = share[:, None] if colours.ndim == 3 else share
    colours = colours.copy()
    colours[partly] = (255 - (255 - colours[partly]) / share).clip(0, 255).round().astype(np.uint8)
    return colours
