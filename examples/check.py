"""Reads every example picture with RapidOCR and zxing-cpp and says what expected.json promises and they do not find.

python examples/check.py           # about half a minute, 770 MB; ends with 1 if something is missing
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import zxingcpp
from PIL import Image, ImageOps
from rapidocr import RapidOCR
from rapidocr.utils.output import RapidOCROutput

HERE = Path(__file__).resolve().parent


def plain(words: str) -> str:
    """How texts are compared: in lower case, without white space."""
    return "".join(words.lower().split())


def main() -> int:
    pillow_heif.register_heif_opener()
    read = RapidOCR()
    missing = 0
    for name, expected in json.loads((HERE / "expected.json").read_text("utf-8")).items():
        with Image.open(HERE / name) as stored:
            upright = ImageOps.exif_transpose(stored).convert("RGB")
        # RapidOCR takes arrays as blue, green, red.
        page = read(np.asarray(upright)[:, :, ::-1])
        assert isinstance(page, RapidOCROutput), "asked for all three steps, so the answer has texts"
        text = plain(" ".join(page.txts or ()))
        codes = {(code.format.name, code.text) for code in zxingcpp.read_barcodes(upright)}
        wanted = {(code["format"], code["text"]) for code in expected["barcodes"]}
        unread = [words for words in expected["contains"] if plain(words) not in text]
        print(f"{name}: {len(expected['contains'])} texts, {len(wanted)} bar codes")
        for what in (*unread, *sorted(wanted - codes)):
            print(f"  missing: {what}")
        for what in sorted(codes - wanted):
            print(f"  not in expected.json: {what}")
        missing += len(unread) + len(wanted ^ codes)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
