"""Reads the TIFFs that Pillow misreads or refuses: deep, floating-point and planar samples, Lab, extra samples, BigTIFF."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, TiffImagePlugin

from pipeline.decode import tiff_directory as tags
from pipeline.decode.depth import as_bytes
from pipeline.decode.pixels import turned_upright
from pipeline.decode.tiff_directory import TiffDirectory
from pipeline.decode.wire import MAX_PIXELS, MAX_SIDE
from pipeline.types import ItemCode, Refused

_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32946, 32773
#: Compressions that work on bytes of any meaning. Pillow's libtiff decompresses all but the first three.
_OF_BYTES = frozenset((_NONE, _DEFLATE, _OLD_DEFLATE, _LZW, _PACKBITS, 34925, 50000))
_FAX = frozenset((2, 3, 4, 32771))
#: Compressions that neither this module nor Pillow reads, by number.
_UNREAD = {
    34661: "JBIG",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    34892: "lossy DNG",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    32809: "ThunderScan",
    32766: "NeXT",
    34676: "SGI Log",
    34677: "SGI Log 24",
}
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB, _ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, 4: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3, _ICC_LAB: 3}
_DIFFERENCES, _FLOATS = 2, 3  # predictors
_BAND = 4 * 1024 * 1024  # bits unpacked at a time: it limits the memory


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """How the file stores its samples."""

    width: int
    height: int
    bits: int  #: bits of each sample; 0 if the samples differ
    samples: int  #: samples in each pixel
    colours: int  #: colour samples in each pixel; the rest are extra samples
    alpha: int  #: the first extra sample: 0 is not alpha, 1 is premultiplied alpha, 2 is alpha that is not premultiplied
    format: int  #: 1 unsigned, 2 signed, 3 floating-point
    photometric: int
    compression: int
    planar: bool  #: whether each sample has its own strips or tiles
    predictor: int
    fill_order: int
    order: str  #: byte order: "<" or ">"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        letter = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f"}[self.format]
        return np.dtype(f"{self.order}{letter}{self.bits // 8}")


def open_tiff(data: bytes) -> Image.Image | bytes | Refused:
    """The first page, upright, with at most 8 bits a sample; or the bytes for Pillow to open, if Pillow reads them correctly.

    Raises ValueError, struct.error, zlib.error or Pillow's errors if the file is damaged.
    """
    directory = tags.first_directory(data)
    layout = _layout(directory)
    if layout.width * layout.height > MAX_PIXELS or max(layout.width, layout.height) > MAX_SIDE:
        raise Image.DecompressionBombError
    if unread := _unread(layout):
        return Refused(
            code=ItemCode.UNSUPPORTED_FORMAT, detail=f"A TIFF {unread} cannot be read here: save it as 8-bit RGB, or as PNG."
        )
    if not _is_ours(layout):
        return tags.as_classic(data, directory) if directory.big and directory.order == ">" else data
    image = _picture(_samples(data, directory, layout), layout, directory)
    if tags.ICC_PROFILE in directory.tags:
        image.info["icc_profile"] = directory.tags[tags.ICC_PROFILE][1]
    return turned_upright(image, directory.number(tags.ORIENTATION, 1))


def _layout(directory: TiffDirectory) -> _Layout:
    samples = directory.number(tags.SAMPLES, len(directory.numbers(tags.BITS, (1,))))
    bits = directory.numbers(tags.BITS, (1,))
    formats = directory.numbers(tags.SAMPLE_FORMAT, (1,))
    photometric = directory.number(tags.PHOTOMETRIC, 1)
    colours = min(_COLOURS.get(photometric, samples), samples)
    extra = directory.numbers(tags.EXTRA_SAMPLES)
    if not extra and samples == colours + 1 and photometric == _RGB:
        extra = (2,)  # some writers of RGBA leave the tag out
    # Viewers read 8-bit samples as unsigned, whatever the tag says, and most files that call them signed mean that.
    unsigned = formats[0] == _UNDEFINED or (formats[0] == _SIGNED and bits[0] == 8)
    same = len(set(bits[:samples])) == 1
    return _Layout(
        width=directory.number(tags.WIDTH, 0),
        height=directory.number(tags.HEIGHT, 0),
        bits=bits[0] if same else 0,
        samples=samples,
        colours=colours,
        alpha=int(extra[0]) if extra and extra[0] in {1, 2} and samples > colours else 0,
        format=_UNSIGNED if unsigned else formats[0],
        photometric=photometric,
        compression=directory.number(tags.COMPRESSION, 1),
        planar=directory.number(tags.PLANAR, 1) == 2 and samples > 1,
        predictor=directory.number(tags.PREDICTOR, 1),
        fill_order=directory.number(tags.FILL_ORDER, 1),
        order=directory.order,
    )


def _unread(layout: _Layout) -> str:
    """Names, for the caller, a variant that neither this module nor Pillow reads; empty if one of them reads it."""
    if layout.compression in _UNREAD:
        return f"compressed as {_UNREAD[layout.compression]}"
    if layout.compression == _JPEG and layout.bits != 8:
        return f"of JPEG with {layout.bits} bits a sample"
    if layout.format in {5, 6}:
        return "of complex numbers"
    if not layout.bits:
        return "whose samples differ in depth"
    if layout.photometric not in _COLOURS:
        return f"of photometric interpretation {layout.photometric}"
    if layout.format == _FLOAT and layout.bits not in {16, 32, 64}:
        return f"of {layout.bits}-bit floating-point samples"
    if layout.bits > 64 or (layout.format == _SIGNED and layout.bits not in {8, 16, 32, 64}):
        return f"of {layout.bits} bits a sample"
    if layout.photometric == _YCBCR and layout.bits != 8:
        return f"of YCbCr with {layout.bits} bits a sample"
    return ""


def _is_ours(layout: _Layout) -> bool:
    """Whether Pillow misreads or refuses the file and this module reads it."""
    if layout.compression not in _OF_BYTES or layout.photometric == _YCBCR or layout.samples < layout.colours:
        return False
    if layout.colours < _COLOURS[layout.photometric]:
        return False
    plain = layout.bits == 8 and layout.format == _UNSIGNED
    if layout.samples == 1:
        small = layout.bits in {1, 2, 4} and layout.format == _UNSIGNED
        return not (plain or small) or layout.photometric not in _COLOURS or layout.photometric == 4
    known = {_RGB: 3, _CMYK: 4, _LAB: 3, _BLACK_IS_ZERO: 1, _PALETTE: 1}.get(layout.photometric, 0) in {
        layout.samples,
        layout.samples - 1,
    }
    return not plain or layout.planar or not known or (layout.samples > layout.colours and layout.photometric in {_CMYK, _LAB})


def _samples(data: bytes, directory: TiffDirectory, layout: _Layout) -> np.ndarray:
    """All samples of the page, shape (height, width, samples)."""
    tiled = tags.TILE_OFFSETS in directory.tags
    offsets = directory.numbers(tags.TILE_OFFSETS if tiled else tags.STRIP_OFFSETS)
    lengths = directory.numbers(tags.TILE_BYTES if tiled else tags.STRIP_BYTES)
    width = directory.number(tags.TILE_WIDTH, 0) if tiled else layout.width
    height = directory.number(tags.TILE_HEIGHT if tiled else tags.ROWS_PER_STRIP, layout.height)
    height = height if tiled else min(height, layout.height)
    if not (0 < width <= 2 * MAX_SIDE and 0 < height <= 2 * MAX_SIDE and layout.width and layout.height):
        raise tags.MalformedTiff
    together = 1 if layout.planar else layout.samples
    kind = (
        layout.dtype.newbyteorder("=")
        if layout.bits in {8, 16, 32, 64}
        else np.dtype(np.uint32 if layout.bits < 33 else np.uint64)
    )
    # A plane of extra samples that are no alpha is not shown, and some writers leave it empty.
    planes = layout.colours + bool(layout.alpha) if layout.planar else 1
    whole = np.empty((layout.height, layout.width, layout.samples), kind)
    across, down = -(-layout.width // width), -(-layout.height // height)
    if len(offsets) < across * down * planes:
        raise tags.MalformedTiff
    if not lengths:
        lengths = tuple(len(data) - offset for offset in offsets)
    for number, (plane, top, left) in enumerate(
        (plane, top * height, left * width) for plane in range(planes) for top in range(down) for left in range(across)
    ):
        rows = height if tiled else min(height, layout.height - top)
        segment = data[offsets[number] : offsets[number] + lengths[number]]
        values = _segment(segment, layout, rows=rows, width=width, together=together)
        shown = values[: layout.height - top, : layout.width - left]
        place = whole[top : top + rows, left : left + width]
        place[..., plane : plane + together] = shown
    return whole


def _segment(segment: bytes, layout: _Layout, *, rows: int, width: int, together: int) -> np.ndarray:
    """The samples of one strip or tile, shape (rows, width, together)."""
    row = (width * together * layout.bits + 7) // 8
    if layout.fill_order == 2:
        segment = np.packbits(np.unpackbits(np.frombuffer(segment, np.uint8), bitorder="little")).tobytes()
    raw = _bytes(segment, layout, row=row, rows=rows)
    if len(raw) < rows * row:
        raise tags.MalformedTiff
    grid = np.frombuffer(raw, np.uint8, rows * row).reshape(rows, row)
    if layout.predictor == _FLOATS and layout.format == _FLOAT:
        return _of_float_bytes(grid, layout, width=width, together=together)
    if layout.bits in {8, 16, 32, 64}:
        values = grid.view(layout.dtype).astype(layout.dtype.newbyteorder("="), copy=False).reshape(rows, width, together)
    else:
        values = np.concatenate(list(_unpacked(grid, layout.bits, width * together))).reshape(rows, width, together)
    if layout.predictor == _DIFFERENCES:
        whole = np.dtype(f"u{values.dtype.itemsize}")  # the differences of floats too are of their bits
        values = np.cumsum(values.view(whole), axis=1, dtype=whole).view(values.dtype)
    return values


def _bytes(segment: bytes, layout: _Layout, *, row: int, rows: int) -> bytes:
    """The uncompressed bytes of one strip or tile."""
    if layout.compression == _NONE:
        return segment
    if layout.compression in {_DEFLATE, _OLD_DEFLATE}:
        return zlib.decompressobj().decompress(segment, row * rows)
    # Pillow's libtiff decompresses the others. It gets the bytes as a grey TIFF with one strip.
    entries = {256: row, 257: rows, 258: 8, 259: layout.compression, 262: 1, 273: 0, 277: 1, 278: rows, 279: len(segment)}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    with TiffImagePlugin.TiffImageFile(
        BytesIO(b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + segment)
    ) as image:
        image.load()
        return image.tobytes()


def _of_float_bytes(grid: np.ndarray, layout: _Layout, *, width: int, together: int) -> np.ndarray:
    """Undoes predictor 3. It stores each row as differences of bytes, with the highest bytes of all floats first."""
    size = layout.bits // 8
    rows = len(grid)
    flat = np.cumsum(grid.reshape(rows, -1, together), axis=1, dtype=np.uint8).reshape(rows, size, width * together)
    return np.ascontiguousarray(flat.transpose(0, 2, 1)).view(f">f{size}").reshape(rows, width, together).astype(f"f{size}")


def _unpacked(grid: np.ndarray, bits: int, values: int) -> Iterator[np.ndarray]:
    """Yields bands of rows. From each row it unpacks the first `values` values of `bits` bits, highest bit first."""
    kind: type[np.unsignedinteger] = np.uint32 if bits < 33 else np.uint64
    weights = np.array([1 << bit for bit in range(bits - 1, -1, -1)], kind)
    step = max(1, _BAND // (grid.shape[1] * 8))
    for top in range(0, len(grid), step):
        ones = np.unpackbits(grid[top : top + step], axis=1, count=values * bits)
        yield ones.reshape(len(ones), values, bits).astype(kind) @ weights


def _picture(samples: np.ndarray, layout: _Layout, directory: TiffDirectory) -> Image.Image:
    """The samples as a Pillow picture with 8 bits a sample."""
    colours = samples[..., : layout.colours]
    if layout.photometric == _PALETTE:
        return _of_palette(colours[..., 0], directory)
    if layout.photometric in {_LAB, _ICC_LAB}:
        return _of_lab(colours, layout)
    full = as_bytes(colours, bits=layout.bits)
    if layout.photometric == _WHITE_IS_ZERO:
        full = 255 - full
    if layout.photometric == 4:
        full = as_bytes(colours, bits=1)
    if layout.photometric == _CMYK:
        if directory.number(tags.INK_SET, 1) != 1:
            raise tags.MalformedTiff
        return Image.fromarray(np.ascontiguousarray(full), "CMYK")
    mode = "RGB" if layout.photometric == _RGB else "L"
    if not layout.alpha:
        return Image.fromarray(np.ascontiguousarray(full if mode == "RGB" else full[..., 0]))
    clear = as_bytes(samples[..., layout.colours :][..., :1], bits=layout.bits, stretch=False)
    image = Image.fromarray(np.concatenate([full, clear], axis=2))
    if layout.alpha == 1:
        image = Image.frombytes({"L": "La", "RGB": "RGBa"}[mode], image.size, image.tobytes()).convert(f"{mode}A")
    return image


def _of_palette(indexes: np.ndarray, directory: TiffDirectory) -> Image.Image:
    table = np.array(directory.numbers(tags.COLOR_MAP), np.uint32).reshape(3, -1).T
    scale = 257 if table.max(initial=0) > 255 else 1
    colours = (table // scale).astype(np.uint8)
    return Image.fromarray(colours[np.minimum(indexes, len(colours) - 1)])


def _of_lab(colours: np.ndarray, layout: _Layout) -> Image.Image:
    """Converts Lab to RGB through Pillow's 8-bit Lab, in which a and b have their zero at 128."""
    if layout.bits not in {8, 16} or layout.format == _FLOAT:
        raise tags.MalformedTiff
    high = (colours.view(np.uint8 if layout.bits == 8 else np.uint16).astype(np.uint32) >> (layout.bits - 8)).astype(np.uint8)
    if layout.photometric == _ICC_LAB:
        high[..., 1:] ^= 0x80
    return Image.frombytes("LAB", (layout.width, layout.height), high.tobytes()).convert("RGB")
