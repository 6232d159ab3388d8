"""Reads text and barcodes in a picture with RapidOCR and zxing-cpp. Only this module imports them."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import pillow_heif
import rapidocr
import zxingcpp
from PIL import Image, ImageOps

from pipeline.decode.pixels import opaque
from pipeline.engines.ocr.wire import Barcode, Box, OcrLine, OcrReply

pillow_heif.register_heif_opener()

Pixels = npt.NDArray[np.uint8]
#: Corners in floating point, shape (4, 2).
Corners = npt.NDArray[np.float64]

_FORMATS = ("PNG", "JPEG", "WEBP", "HEIF")
_MAX_PIXELS = 50_000_000
#: The shorter side is scaled down to this. An A4 page then has 174 dpi, where 6 pt text was read without an error (measured).
_SHORT_SIDE = 1440
#: The longer side is read in pieces of this length. It also limits the width of a line, and so the recognizer's memory.
_PIECE = 2160
#: Pictures whose shorter side is below this are enlarged, to twice their size at most. 6 pt text at 75 dpi then has a third
#: fewer errors.
_ENLARGE_BELOW = 640
#: RapidOCR's own default. Below it a line is noise.
_MIN_CONFIDENCE = 0.5
#: From this confidence on, a page is taken to be the right way up. Measured: 0.97 and more for upright pages, 0.64 to 0.77 for
#: pages that are upside down.
_SURE = 0.85
#: Lines of a script that the models know had a confidence of 0.93 and more; lines of other scripts had 0.53 to 0.93.
_CLEAR_LINE = 0.9
#: The same for a line of 2 to 4 times its height, whose confidence depends on few letters.
_CLEAR_SHORT_LINE = 0.8
#: A line shorter than this many times its height tells little about its script.
_SHORT_LINE = 4.0
#: A line shorter than this many times its height tells nothing about its script.
_TOO_SHORT_LINE = 2.0
#: Letters for each line height of length. Measured: 1.15 to 2.7 for Latin script, 0.1 to 0.9 for Cyrillic, whose letters are left out.
_LETTERS_A_HEIGHT = 1.0
_FIRST_WIDE = 0x2E80  # the first of the characters that are as wide as they are high: Chinese and Japanese ones
#: The models know a few Greek letters, for formulas. Two of them in a row are a word.
_GREEK_WORD = re.compile("[\u0370-\u03ff]{2}")
#: RapidOCR drops a box in which the recognizer reads nothing. This stands for the text of such a box, so that it is kept.
_UNREAD = "\ufffd"
_MUCH = 0.4  # of the text
#: A reading in another rotation is preferred only if it is better by this factor.
_CLEARLY = 1.1
#: A box that is this many times taller than wide is a line on its side.
_TALL = 1.5
#: The barcodes that are looked for. DX film edge, Telepen and Codabar are left out, because stripes in photos are mistaken for
#: them.
_BARCODES = (
    zxingcpp.BarcodeFormat.EANUPC,
    zxingcpp.BarcodeFormat.Code128,
    zxingcpp.BarcodeFormat.Code39,
    zxingcpp.BarcodeFormat.Code93,
    zxingcpp.BarcodeFormat.ITF,
    zxingcpp.BarcodeFormat.DataBar,
    zxingcpp.BarcodeFormat.AllMatrix,
    zxingcpp.BarcodeFormat.PDF417,
)


class HungUp(Exception):
    """The caller no longer waits for its picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """One line of text that was detected."""

    text: str  #: empty if the recognizer read nothing in it
    corners: Corners  #: pixels of the picture
    confidence: float
    places: tuple[int, ...] = ()  #: see OcrReply


class Reader:
    """Reader one picture at a time. Not thread-safe. Loading takes about a second and 170 MB; the first pages take 700 MB."""

    def __init__(self) -> None:
        models = Path(rapidocr.__file__).parent / "models"
        detector, recognizer = models / "PP-OCRv6_det_small.onnx", models / "PP-OCRv6_rec_small.onnx"
        self.model_version = f"rapidocr {version('rapidocr')} PP-OCRv6-small"
        self._ocr = rapidocr.RapidOCR(
            params={
                "Global.log_level": "critical",
                # The 180-degree classifier sees each line squeezed to 4:1, and turns long lines upside down by mistake. On one
                # page 18 of 47 lines (31 % of the letters) were lost. So `_turned` rotates the whole page instead.
                "Global.use_cls": False,
                # Sizes are decided in `_pieces`.
                "Global.use_preprocess_img": False,
                "Global.text_score": 0.0,
                "Det.limit_type": "max",
                "Det.limit_side_len": 10 * _PIECE,
                # The models are given by path, so that a wheel without them fails here and does not download them.
                "Det.model_path": str(detector),
                "Rec.model_path": str(recognizer),
                # One line at a time needs no padding. It is a third faster on pages, and a line's text does not depend on
                # the lines that are read with it.
                "Rec.rec_batch_num": 1,
                "EngineConfig.onnxruntime.intra_op_num_threads": _cores(),
            }
        )
        page = np.full((64, 256, 3), 255, np.uint8)
        cv2.putText(page, "Read 123", (20, 46), cv2.FONT_HERSHEY_SIMPLEX, 1.3, (0, 0, 0), 3)
        self._ocr(page)  # RapidOCR loads a model when it first needs it
        for part, model in ((self._ocr.text_det, detector), (self._ocr.text_rec, recognizer)):
            engine: Any = part and part.session
            engine.session = _without_spinning(engine.session, model)

    def read(self, data: bytes, still_wanted: Callable[[], bool]) -> OcrReply:
        """Reader the picture's text and barcodes. Raises HungUp soon after `still_wanted` returns False."""
        try:
            picture = upright(data)
        except (OSError, ValueError, SyntaxError, RuntimeError, MemoryError, Image.DecompressionBombError) as error:
            return OcrReply(kind="unreadable", detail=f"The picture could not be decoded: {error}"[:300])
        codes = _barcodes(picture)
        found = self._turned(picture, still_wanted)
        areas = [_polygon(code.box) for code in codes if code.format in _MATRIX]
        # The text detector mistakes the squares of a matrix code for letters.
        found = [line for line in found if not any(_inside(area, line.corners.mean(axis=0)) for area in areas)]
        lines = [line for line in found if line.text and line.confidence >= _MIN_CONFIDENCE]
        return OcrReply(
            kind="reading",
            model_version=self.model_version,
            lines=tuple(
                OcrLine(text=line.text, box=_whole(line.corners), confidence=round(line.confidence, 3)) for line in lines
            ),
            barcodes=tuple(codes),
            doubtful=_is_doubtful(found),
            places=tuple(line.places for line in lines),
            size=(picture.shape[1], picture.shape[0]),
        )

    def _turned(self, picture: Pixels, still_wanted: Callable[[], bool]) -> list[_Found]:
        """The lines of the picture, from the quarter turn whose reading is the best. An unread line has no text."""
        first = self._lines(picture, 0, still_wanted)
        read = [line for line in first if line.text]
        sideways = _sideways(read)
        sure = _confidence(read) >= _SURE
        if not read or (sure and not sideways):
            return first
        # RapidOCR turns tall boxes counter-clockwise. If they read well that way, the picture reads well that way too.
        turns = ((1, 3) if sure else (3, 1)) if sideways else (2,)
        # The first reading of a sideways page is not used, because the corners of tall boxes don't show where their text
        # begins, so the reading order is unknown. A single tall box is kept, because it may be a digit.
        best = [] if sideways and len(read) > 1 else first
        for turn in turns:
            other = self._lines(picture, turn, still_wanted)
            if _worth(other) > _CLEARLY * _worth(best):
                best = other
            if best and _confidence(best) >= _SURE:
                break
        return best or first

    def _lines(self, picture: Pixels, turn: int, still_wanted: Callable[[], bool]) -> list[_Found]:
        """The lines of the picture after `turn` quarter turns counter-clockwise, with corners in the unturned picture."""
        turned = np.ascontiguousarray(np.rot90(picture, turn))
        height, width = picture.shape[:2]
        found = []
        for piece, scale, left, top in _pieces(turned):
            if not still_wanted():
                raise HungUp
            result = self._result(piece)
            if not len(result):
                continue
            for corners, text, confidence, columns in zip(
                result.boxes, result.txts, result.scores, result.word_results, strict=True
            ):
                placed = np.asarray(corners, np.float64) / scale + (left, top)
                text, confidence = ("", 0.0) if text == _UNREAD else (text, float(confidence))  # noqa: PLW2901
                back = _back(placed, turn, width, height)
                found.append(_Found(text=text, corners=back, confidence=confidence, places=_places(text, columns)))
        return found

    def _result(self, piece: Pixels) -> Any:
        """What RapidOCR gives for the picture, with the text _UNREAD for each box in which it read nothing."""
        image, steps = self._ocr.preprocess_img(self._ocr.load_img(piece))
        # RapidOCR keeps the columns of the characters only if it is asked for word boxes. Its own boxes are not computed, because
        # they join words of one script and take longer than the columns.
        self._ocr.return_word_box = True
        boxes, turns, texts, cut_out = self._ocr.run_ocr_steps(image, steps)
        self._ocr.return_word_box = False
        if texts.txts is not None:
            texts.txts = tuple(text if text.strip() else _UNREAD for text in texts.txts)
        return self._ocr.build_final_output(piece, boxes, turns, texts, cut_out, steps)


def _places(text: str, columns: Any) -> tuple[int, ...]:
    """See OcrReply. `columns` is RapidOCR's WordInfo: the column of the recognizer's output in which each letter was read.

    It has no columns for spaces, so a space is put in the middle between its neighbours.
    """
    found = [column for word in columns.word_cols for column in word] if columns else []
    letters = [at for at, letter in enumerate(text) if not letter.isspace()]
    if not letters or len(found) != len(letters) or not columns.line_txt_len:
        return ()
    places = np.interp(range(len(text)), letters, (np.asarray(found) + 0.5) * 1000 / columns.line_txt_len)
    return tuple(int(place) for place in places.round().clip(0, 1000))


def upright(data: bytes) -> Pixels:
    """The picture's pixels as a viewer shows them: 8-bit BGR, shape (height, width, 3), with transparent parts on a grey
    that contrasts with what is beside them.

    Raises what Pillow raises if the bytes are not a picture, and ValueError if it has more than 50 million pixels.
    """
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"it has more than {_MAX_PIXELS} pixels")
        image.load()
        shown = ImageOps.exif_transpose(image)
    if shown.mode.startswith(("I", "F")):
        # These modes have more than 8 bits a pixel, and convert() would clip them to white.
        shown = Image.fromarray((np.asarray(shown, np.float64) / 257).clip(0, 255).astype(np.uint8))
    return np.ascontiguousarray(np.asarray(opaque(shown).convert("RGB"))[:, :, ::-1])


def _pieces(picture: Pixels) -> Iterator[tuple[Pixels, float, int, int]]:
    """Cuts the scaled picture into pieces. Yields pixels, scale, and the left and top edge in the unscaled picture.

    A long picture (a chat, a web page, a till roll) is cut because its text would be too small to read in one piece.
    """
    height, width = picture.shape[:2]
    short, long = sorted((height, width))
    scale = min(1.0, _SHORT_SIDE / short)
    if short < _ENLARGE_BELOW:
        scale = max(1.0, min(2.0, _ENLARGE_BELOW / short, _PIECE / long))
    if scale != 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC).astype(np.uint8)
    tall = picture.shape[0] >= picture.shape[1]
    edges = _cuts(picture, axis=0 if tall else 1)
    for start, end in pairwise(edges):
        piece = picture[start:end] if tall else picture[:, start:end]
        offset = round(start / scale)
        yield np.ascontiguousarray(piece), scale, 0 if tall else offset, offset if tall else 0


def _cuts(picture: Pixels, *, axis: int) -> list[int]:
    """Where to cut along `axis`, including both ends. Each cut is at the emptiest line in the last quarter of its piece."""
    length = picture.shape[axis]
    if length <= _PIECE:
        return [0, length]
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.int16)
    ink = np.abs(np.diff(grey, axis=1 - axis)).mean(axis=1 - axis) if picture.shape[1 - axis] > 1 else np.zeros(length)
    # Sum over nine lines of pixels, so that the cut keeps clear of the letters on both sides.
    ink = np.convolve(ink, np.ones(9), "same")
    cuts = [0]
    while length - cuts[-1] > _PIECE:
        first, last = cuts[-1] + _PIECE * 3 // 4, cuts[-1] + _PIECE
        cuts.append(first + int(np.argmin(ink[first:last])))
    return [*cuts, length]


def _back(corners: Corners, turn: int, width: int, height: int) -> Corners:
    """Maps corners in the rotated picture (`turn` quarters counter-clockwise) back to the unrotated one of width x height."""
    x, y = corners[:, 0], corners[:, 1]
    if turn == 1:
        x, y = width - y, x
    elif turn == 2:
        x, y = width - x, height - y
    elif turn == 3:
        x, y = y, height - x
    return np.stack([x.clip(0, width), y.clip(0, height)], axis=1)


def _sideways(lines: list[_Found]) -> bool:
    """Whether most of the text, by length, is in boxes that are taller than wide."""
    tall = whole = 0.0
    for line in lines:
        across = float(np.linalg.norm(line.corners[1] - line.corners[0]))
        down = float(np.linalg.norm(line.corners[3] - line.corners[0]))
        whole += max(across, down)
        tall += down if down > _TALL * across else 0.0
    return tall > whole / 2


def _is_doubtful(lines: list[_Found]) -> bool:
    """Whether much of the text, by length, is unclear, or seems to be of a script that the models have no letters for.

    Numbers are left out if there is other text, because most scripts share their digits.
    """
    doubtful = whole = 0.0
    for line in [line for line in lines if not line.text or _has_letters(line.text)] or lines:
        across = float(np.linalg.norm(line.corners[1] - line.corners[0]))
        down = float(np.linalg.norm(line.corners[3] - line.corners[0]))
        length = across / max(down, 1.0)
        if length < _TOO_SHORT_LINE:
            continue
        whole += length
        doubtful += length if _is_doubtful_line(line, length) else 0.0
    return doubtful > _MUCH * whole


def _is_doubtful_line(line: _Found, length: float) -> bool:
    """Whether the models seem to have no letters for the line. `length` is the line's width in heights of the line.

    The models do one of three things with letters that they do not know. They read nothing in the whole line. They read letters
    that look alike, with a low confidence. Or they leave the letters out and are sure of the rest, so that the line has far fewer
    letters than there is room for.
    """
    if not line.text or _GREEK_WORD.search(line.text):
        return True
    if length < _SHORT_LINE:
        return line.confidence < _CLEAR_SHORT_LINE
    letters = sum(not letter.isspace() for letter in line.text)
    sparse = letters < _LETTERS_A_HEIGHT * length and not any(ord(letter) >= _FIRST_WIDE for letter in line.text)
    return sparse or line.confidence < _CLEAR_LINE


def _has_letters(text: str) -> bool:
    return any(letter.isalpha() for letter in text)


def _confidence(lines: list[_Found]) -> float:
    """The mean confidence over all letters, 0 to 1."""
    letters = sum(len(line.text) for line in lines)
    return sum(line.confidence * len(line.text) for line in lines) / letters if letters else 0.0


def _worth(lines: list[_Found]) -> float:
    """A score for a reading: the number of letters, weighted by confidence to the fourth power, so that noise hardly counts."""
    return sum(line.confidence**4 * len(line.text) for line in lines)


#: Names of the two-dimensional codes.
_MATRIX = frozenset(
    kind.name for kind in zxingcpp.barcode_formats_list(zxingcpp.BarcodeFormats([zxingcpp.BarcodeFormat.AllMatrix]))
)


def _barcodes(picture: Pixels) -> list[Barcode]:
    """All barcodes of the picture, ordered from the top."""
    codes = []
    for code in zxingcpp.read_barcodes(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), formats=zxingcpp.BarcodeFormats(_BARCODES)):
        at = code.position
        corners = (at.top_left, at.top_right, at.bottom_right, at.bottom_left)
        codes.append(Barcode(format=code.format.name, text=code.text, box=[[corner.x, corner.y] for corner in corners]))
    return sorted(codes, key=lambda code: (code.box[0][1], code.box[0][0]))


def _polygon(box: Box) -> npt.NDArray[np.float32]:
    return np.asarray(box, np.float32)


def _inside(polygon: npt.NDArray[np.float32], point: Corners) -> bool:
    return cv2.pointPolygonTest(polygon, (float(point[0]), float(point[1])), measureDist=False) >= 0


def _whole(corners: Corners) -> Box:
    return [[round(float(x)), round(float(y))] for x, y in corners]


def _without_spinning(session: onnxruntime.InferenceSession, model: Path) -> onnxruntime.InferenceSession:
    """A session with the same options, but whose threads sleep while they wait for each other. RapidOCR can't be told so.

    By default they spin. Measured with three other busy processes on two cores: 59 s instead of 74 s for nine pictures, and
    39 s of CPU instead of 56 s. On an idle machine the time is the same.
    """
    options = session.get_session_options()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options, providers=session.get_providers())


def _cores() -> int:
    """How many cores this process may use. Measured: a page takes 4.7 s with one core and 2.5 s with two."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
