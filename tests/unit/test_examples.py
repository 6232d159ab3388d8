"""The example pictures are what their manifest says they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
import zxingcpp
from PIL import ExifTags, Image, ImageOps, ImageSequence

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SUFFIXES = {".png", ".jpg", ".webp", ".heic", ".tiff", ".gif"}
EXPECTED: dict[str, dict[str, Any]] = json.loads((EXAMPLES / "expected.json").read_text("utf-8"))


def magic(name: str) -> str:
    """The format that the first bytes name."""
    head = (EXAMPLES / name).read_bytes()[:16]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix"}:
        return "HEIC"
    starts = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF89a": "GIF", b"II*\x00": "TIFF", b"MM\x00*": "TIFF"}
    return next((form for start, form in starts.items() if head.startswith(start)), "unknown")


def upright(name: str) -> Image.Image:
    path = EXAMPLES / name
    if path.suffix == ".heic":
        return pillow_heif.open_heif(path).to_pillow().convert("RGB")
    with Image.open(path) as stored:
        return ImageOps.exif_transpose(stored).convert("RGB")


def ean_sum(digits: str) -> int:
    return sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(digits))


def test_the_manifest_lists_exactly_the_pictures_in_the_folder_in_their_order() -> None:
    pictures = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in SUFFIXES)
    assert list(EXPECTED) == pictures
    assert [name[:3] for name in pictures] == [f"{number:02}-" for number in range(1, 13)]


def test_every_entry_of_the_manifest_describes_the_picture_and_names_texts_to_find() -> None:
    for name, expected in EXPECTED.items():
        assert set(expected) == {"description", "contains", "barcodes"}, name
        assert expected["description"].endswith("."), name
        texts = expected["contains"]
        assert len(texts) >= 4, name
        assert len(texts) == len(set(texts)), name
        assert all(text == text.strip() and len(text) >= 4 for text in texts), name


def test_all_six_formats_are_there_by_their_first_bytes_and_their_names_agree() -> None:
    suffix = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "HEIC": ".heic", "TIFF": ".tiff", "GIF": ".gif"}
    formats = {name: magic(name) for name in EXPECTED}
    assert set(formats.values()) == set(suffix)
    assert {name: Path(name).suffix for name in EXPECTED} == {name: suffix[form] for name, form in formats.items()}


def test_the_pictures_are_small_enough_to_commit_and_large_enough_to_read() -> None:
    sizes = {name: (EXAMPLES / name).stat().st_size for name in EXPECTED}
    assert sum(sizes.values()) < 2_500_000
    assert max(sizes.values()) < 500_000
    for name in EXPECTED:
        width, height = upright(name).size
        assert 640 <= width <= 2400, name
        assert 320 <= height <= 2400, name


def test_the_sideways_picture_carries_the_tag_that_turns_it_upright() -> None:
    with Image.open(EXAMPLES / "06-sideways-menu.jpg") as stored:
        assert stored.getexif()[ExifTags.Base.Orientation] == 6
        assert stored.size == (1600, 1200)
    assert upright("06-sideways-menu.jpg").size == (1200, 1600)


def test_the_scanned_invoice_is_a_bilevel_group_4_page_of_a4_at_200_dots_an_inch() -> None:
    with Image.open(EXAMPLES / "03-invoice.tiff") as page:
        assert (page.mode, page.info["compression"], page.size) == ("1", "group4", (1654, 2339))
        assert page.info["dpi"] == (200, 200)


def test_the_banner_has_a_palette_and_three_frames_that_differ() -> None:
    with Image.open(EXAMPLES / "09-ferry-banner.gif") as banner:
        assert banner.mode == "P"
        frames = [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(banner)]
    assert len(frames) == len(set(frames)) == 3


@pytest.mark.parametrize("name", EXPECTED)
def test_the_listed_bar_codes_and_no_others_are_read_from_the_picture(name: str) -> None:
    found = {(code.format.name, code.text) for code in zxingcpp.read_barcodes(upright(name))}
    assert found == {(code["format"], code["text"]) for code in EXPECTED[name]["barcodes"]}


def test_every_ean_has_a_right_check_digit_and_is_from_the_range_kept_for_use_inside_a_shop() -> None:
    eans = [code["text"] for expected in EXPECTED.values() for code in expected["barcodes"] if code["format"] == "EAN13"]
    assert len(eans) == 9
    assert all(len(ean) == 13 and ean.startswith("2") and ean_sum(ean) % 10 == 0 for ean in eans)


def test_the_iban_of_the_invoice_has_right_check_digits() -> None:
    (iban,) = (text.replace(" ", "") for text in EXPECTED["03-invoice.tiff"]["contains"] if text.startswith("DE59"))
    assert int("".join(str(int(letter, 36)) for letter in iban[4:] + iban[:4])) % 97 == 1
