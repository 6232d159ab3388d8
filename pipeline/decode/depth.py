"""Converts samples of any depth to bytes. It scales them instead of clipping them, so that the picture keeps its brightness."""

from __future__ import annotations

import numpy as np

FAINT = 16  # if a picture's lightest value is below a 16th of its depth's range, its samples use only the low bits
_BAND = 256  # rows scaled at a time: it limits the memory for 64-bit arithmetic


def white_of(lightest: int, bits: int) -> int:
    """The value that becomes 255, for unsigned samples of `bits` bits. `lightest` is the greatest of the samples.

    Some files store the 8 to 12 bits of a sensor in 16-bit samples, or 8 bits in 32-bit samples. Scaled by the full range, they
    would be almost black. So if the lightest value is below a 16th of the range, only the bits in use are the scale.
    """
    full = (1 << bits) - 1
    return full if bits <= 8 or lightest >= (full + 1) // FAINT else (1 << max(lightest.bit_length(), 8)) - 1


def as_bytes(values: np.ndarray, *, bits: int, stretch: bool = True) -> np.ndarray:
    """The samples as bytes, in the same shape (height first). `bits`: the depth of unsigned samples; others ignore it.

    Unsigned samples are scaled by white_of, or by their full range if `stretch` is off. Floats from 0 to 1 are multiplied by 255.
    Other floats and signed integers are scaled from the least to the greatest finite value, because their type sets no range.
    An infinity becomes the nearest end of the range, and NaN becomes its least value.
    """
    if values.dtype == np.uint8 and bits == 8:
        return values
    if values.dtype.kind == "u":
        white = white_of(int(values.max(initial=0)), bits) if stretch else (1 << bits) - 1
        if bits <= 16:
            table = ((np.arange(1 << bits) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)
            out = np.empty(values.shape, np.uint8)
            for top in range(0, len(values), _BAND):  # in bands, because numpy's index arrays are large
                out[top : top + _BAND] = table[values[top : top + _BAND]]
            return out
        least, scale = 0.0, 255 / white
        greatest = float(white)
    else:
        least, greatest = _range_of(values, stretch=stretch)
        scale = 255 / (greatest - least) if greatest > least else 0.0
    out = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _BAND):
        band = values[top : top + _BAND].astype(np.float64)
        np.nan_to_num(band, copy=False, nan=least, posinf=greatest, neginf=least)
        out[top : top + _BAND] = np.rint(((band - least) * scale).clip(0, 255))
    return out


def _range_of(values: np.ndarray, *, stretch: bool) -> tuple[float, float]:
    """The values of floats or signed integers that become 0 and 255."""
    finite = values[np.isfinite(values)]
    least, greatest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if values.dtype.kind == "f" and least >= 0 and (1 / FAINT <= greatest <= 1 or not stretch):
        return 0.0, 1.0
    if values.dtype.kind == "f" and least >= 0 and 128 <= greatest <= 255:
        return 0.0, 255.0  # bytes that were stored as floats
    return least, greatest
