"""Samples of any depth as bytes, so that a picture looks as it was meant: scaled, not clipped."""

from __future__ import annotations

import numpy as np

FAINT = 16  # a picture whose lightest value is under a 16th of what its depth holds has fewer bits than its samples
_BAND = 256  # rows rescaled at a time: bounds the memory of 64-bit arithmetic


def white_of(lightest: int, bits: int) -> int:
    """The value that is to become 255, for unsigned samples of `bits` bits whose greatest is `lightest`.

    A picture whose lightest value is far under what its samples can hold has the 8 to 12 bits of a sensor in 16, or 8 in 32: its
    own bits are the scale, for else it would be all but black.
    """
    full = (1 << bits) - 1
    return full if bits <= 8 or lightest >= (full + 1) // FAINT else (1 << max(lightest.bit_length(), 8)) - 1


def as_bytes(values: np.ndarray, *, bits: int, stretch: bool = True) -> np.ndarray:
    """The samples as bytes, in the same shape (height first). `bits`: of each, where they are unsigned.

    Unsigned samples are scaled by their depth (see white_of; with `stretch` off by the whole of it), floats between 0 and 1 by
    255, and what has no range of its own (other floats, signed integers) from the least to the greatest finite value. Infinities
    become the end they are beyond, what is no number the least.
    """
    if values.dtype == np.uint8 and bits == 8:
        return values
    if values.dtype.kind == "u":
        white = white_of(int(values.max(initial=0)), bits) if stretch else (1 << bits) - 1
        if bits <= 16:
            table = ((np.arange(1 << bits) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)
            out = np.empty(values.shape, np.uint8)
            for top in range(0, len(values), _BAND):  # the indexes that numpy makes of the values are large
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
    """What becomes 0 and what 255, of floats and signed integers."""
    finite = values[np.isfinite(values)]
    least, greatest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if values.dtype.kind == "f" and least >= 0 and (1 / FAINT <= greatest <= 1 or not stretch):
        return 0.0, 1.0
    if values.dtype.kind == "f" and least >= 0 and 128 <= greatest <= 255:
        return 0.0, 255.0  # bytes, kept as floats
    return least, greatest
