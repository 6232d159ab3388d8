"""Compares the picture that a model would get with the pictures of other decoders, for bench.pictures."""

from __future__ import annotations

import numpy as np

from bench.pictures_decoders import Decoded

_GROUNDS = (255, 0, 128)  # the grounds on which the service may put a transparent picture
#: Formats whose decoders may round differently, and pictures in colours that each program converts by its own formula.
_LOSSY = frozenset(("JPEG", "JPEG 2000", "JPEG XL", "WebP", "AVIF", "HEIC", "HEIF", "HEIF sequence", "PCD", "DDS", "FTEX"))
_ROUNDING = 3  # of 255: samples that differ by at most so much are the same
_FEW = 0.0005  # share of the pixels that may differ by more
_MEAN_OF_LOSSY, _MEAN_OF_INKS = 4.0, 12.0  # of 255: how much pictures of lossy formats, and of CMYK, may differ on average
_MEAN_OF_SCALED = 2.0  # of 255: how much may be left of a difference in brightness after one scale for the whole picture


def same(ours: np.ndarray, other: Decoded, *, kind: str, lossy: bool = False, inks: bool = False) -> bool:
    """Whether both show the same picture. `ours`: RGB bytes, shape (height, width, 3). `lossy`: ours was made a JPEG."""
    if ours.shape[:2] != other.rgba.shape[:2]:
        return False
    if other.by == "Pillow" and other.deep is not None:
        return _in_order(other.deep[..., 0].ravel(), ours[..., 0].ravel())
    for shown in _shown(other.rgba):
        difference = np.abs(ours.astype(np.int16) - shown)
        if inks and difference.mean() < _MEAN_OF_INKS:
            return True
        if (lossy or kind in _LOSSY) and difference.mean() < _MEAN_OF_LOSSY:
            return True
        if (difference.max(axis=2) > _ROUNDING).mean() <= _FEW:
            return True
    return False


def scaled(ours: np.ndarray, other: Decoded) -> bool:
    """Whether both show the same picture, apart from one scale of brightness for the whole picture."""
    if ours.shape[:2] != other.rgba.shape[:2]:
        return False
    theirs = other.deep if other.deep is not None else other.rgba
    theirs = theirs[..., :3].astype(np.float64).reshape(-1)
    mine = (ours if len(theirs) == ours.size else ours[..., 0]).astype(np.float64).reshape(-1)
    if len(theirs) != len(mine) or np.ptp(theirs) == 0:
        return bool(np.ptp(mine) == 0)
    slope, offset = np.polyfit(theirs, mine, 1)
    return bool(slope > 0 and np.abs(theirs * slope + offset - mine).mean() < _MEAN_OF_SCALED)


def _shown(rgba: np.ndarray) -> list[np.ndarray]:
    """The picture on each ground; without its alpha as well if the alpha is 0 everywhere, because the service ignores it then."""
    colours, alpha = rgba[..., :3].astype(np.int32), rgba[..., 3:].astype(np.int32)
    least = int(alpha.min(initial=255))
    if least == 255:
        return [colours]
    plain = [colours] if not alpha.any() else []
    return [*plain, *((colours * alpha + ground * (255 - alpha) + 127) // 255 for ground in _GROUNDS)]


def _in_order(plain: np.ndarray, ours: np.ndarray) -> bool:
    """Whether our greys are in the order of the deep ones, rising or falling, and not flat unless those are."""
    steps = np.diff(ours[np.argsort(plain, kind="stable")].astype(np.int16))
    if (steps < 0).any() and (steps > 0).any():
        return False
    return bool(ours.max() > ours.min() or plain.max() == plain.min())
