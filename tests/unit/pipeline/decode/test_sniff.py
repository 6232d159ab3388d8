"""What a stranger's bytes are taken for."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decode.jpeg import jpeg_scans
from pipeline.decode.sniff import CONVERTED_FORMATS, NATIVE_FORMATS, sniff
from pipeline.types import ItemCode, Refused
from tests.fakes import picture_files


def refusal(data: bytes) -> str:
    outcome = sniff(data)
    assert isinstance(outcome, Refused)
    assert outcome.code is ItemCode.UNSUPPORTED_FORMAT
    return outcome.detail


@pytest.mark.parametrize("kind", [*NATIVE_FORMATS, *CONVERTED_FORMATS])
def test_each_format_is_known_by_its_own_bytes(kind):
    assert sniff({**picture_files.native(), **picture_files.converted()}[kind]) == kind


@pytest.mark.parametrize("head", [b"\xff\x0a\xfa\x7f", b"\x00\x00\x00\x0cJXL \r\n\x87\n"])
def test_a_jpeg_xl_is_known_bare_and_in_its_container(head):
    assert sniff(head) == "JPEG XL"


def test_empty_bytes_are_an_empty_image():
    assert sniff(b"") == Refused(code=ItemCode.IMAGE_EMPTY, detail="The image is empty (0 bytes).")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "PDF is not an image format we take: send each page as a picture."),
        (b"\n\n junk \n%PDF-1.4", "PDF is not"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(30), "PostScript"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG is a drawing"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- by hand -->\n<!DOCTYPE svg>\n<SVG/>', "SVG is a drawing"),
        ('<?xml version="1.0" encoding="utf-16"?><svg/>'.encode("utf-16"), "SVG is a drawing"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "This is an HTML page, not an image"),
        (b"  \r\n<HTML>", "This is an HTML page"),
        (b"<html><body><svg></svg></body></html>", "This is an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "This is XML text"),
        (b'{"error": "not found"}', "This is text, not an image."),
        ("Grüße".encode(), "This is text"),
        (b" \n ", "This is text"),
        (b"data:image/png;base64,iVBORw0KGgo=", "This is base64 text"),
        (b"/9j/4AAQSkZJRgABAQ", "This is base64 text"),
        (b"iVBORw0KGgoAAAANSUhEUg", "This is base64 text"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "Video is not"),
        (b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  ", "Video is not"),
        (b"\x00\x00\x00\x08wide\x00\x01", "Video is not"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "Video is not"),
        (b"\x1a\x45\xdf\xa3\x01", "Video is not"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom", "Camera raw"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "Camera raw"),
        (b"FUJIFILMCCD-RAW 0201", "Camera raw"),
        (b"IIU\x00\x18\x00\x00\x00", "Camera raw"),
        (b"II\xbc\x01\x08", "JPEG XR"),
        (b"\xd7\xcd\xc6\x9a" + bytes(30), "WMF"),
        (b"\x01\x00\x00\x00\x6c".ljust(40, b"\0") + b" EMF", "EMF"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"8BPS\x00\x02" + bytes(20), "PSB"),
        (b"gimp xcf v011", "XCF"),
        (b"P7\nWIDTH 4", "PAM"),
        (gzip.compress(b"<svg/>", mtime=0), "An archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(30), "An Office document"),
        (b"\x00\x01\x02\x03 nothing we know", "The first bytes (00 01 02 03 20 6e 6f 74) are of no image format we know."),
        (b"BM is how this note begins\x00", "of no image format we know"),
        (b"\x7fELF\x02\x01\x01", "of no image format we know"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_name(data, said):
    assert said in refusal(data)


def test_a_zip_archive_is_refused_by_its_name():
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("scan.png", picture_files.native()["PNG"])
    assert "A ZIP archive or Office document is not an image" in refusal(body.getvalue())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "entries",
    [
        [(256, 4, 100), (50706, 1, 1)],  # DNGVersion
        [(262, 3, 32803)],  # a colour-filter array
        [(262, 3, 34892)],  # linear raw
        [(254, 4, 1), (330, 4, 8)],  # a preview of what is in another directory: NEF, ARW
    ],
)
def test_camera_raw_in_a_tiff_is_refused_by_its_name(entries, order):
    assert refusal(picture_files.tiff(entries, order=order)).startswith("Camera raw is not an image format we take")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("entries", [[(254, 4, 0), (330, 4, 8)], [(254, 4, 1)], [(262, 3, 2)], []])
def test_a_pyramid_or_a_plain_tiff_is_no_camera_raw(entries, order):
    assert sniff(picture_files.tiff(entries, order=order)) == "TIFF"


def test_a_tiff_directory_behind_the_end_is_still_a_tiff():
    assert sniff(b"II*\x00\xff\xff\xff\xff") == "TIFF"


@pytest.mark.parametrize(
    ("brand", "compatible", "kind"),
    [
        (b"mif1", b"avif", "AVIF"),
        (b"avis", b"avif", "AVIF"),
        (b"mif1", b"heic", "HEIF"),
        (b"heix", b"mif1", "HEIC"),
        (b"msf1", b"hevc", "HEIF sequence"),
    ],
)
def test_the_first_brand_tells_heif_from_its_relatives(brand, compatible, kind):
    assert sniff(b"\x00\x00\x00\x18ftyp" + brand + bytes(4) + brand + compatible) == kind


@pytest.mark.parametrize("tail", [b"%PDF-1.7", b"<html></html>", b"PK\x03\x04", b"TRUEVISION-XFILE.\x00"])
def test_the_beginning_decides_whatever_follows(tail):
    assert sniff(picture_files.native()["JPEG"] + tail) == "JPEG"


def test_bytes_of_another_format_further_in_do_not_mislead():
    jpeg = bytearray(picture_files.encoded(picture_files.photo(400, 300), "JPEG", comment=b"x" * 400))
    for at, magic in ((40, b" EMF"), (128, b"DICM"), (257, b"ustar")):
        jpeg[at : at + len(magic)] = magic
    assert sniff(bytes(jpeg)) == "JPEG"


def test_an_icon_without_entries_is_none():
    assert "no image format" in refusal(b"\x00\x00\x01\x00\x00\x00" + bytes(20))


@pytest.mark.parametrize("scans", [50, 100, 101, 1000])
def test_the_scans_of_a_progressive_jpeg_are_counted(scans):
    assert jpeg_scans(picture_files.jpeg_of_many_scans(scans), most=100) == min(scans, 101)


def test_scan_markers_in_thumbnails_and_behind_the_end_are_not_counted():
    jpeg = picture_files.native()["JPEG"]
    segment = b"\xff\xda\xff\xda" * 200
    app = b"\xff\xe2" + (len(segment) + 2).to_bytes(2, "big") + segment
    assert jpeg_scans(jpeg[:2] + app + jpeg[2:] + segment, most=100) == 1


def test_tables_before_the_image_do_not_hide_its_scans():
    image = picture_files.jpeg_of_many_scans(300)
    assert jpeg_scans(b"\xff\xd8\xff\xd9" + image, most=100) == 101
    # Where the length of a marker that has none would lead to: a header of one scan, in a comment.
    header = b"\xff\xc0\x00\x11\x08\x00\x10\x00\x10\x03" + bytes(9) + b"\xff\xda\x00\x0c\x03" + bytes(9)
    comment = b"\xff\xfe\xff\xff" + bytes(65_533)
    hidden = comment + b"\xff\xfe\x10\x00" + (header * 200)[:4094]
    assert jpeg_scans(b"\xff\xd8\xff\xd9\xff\xd8" + hidden + image[2:], most=100) == 101


def test_a_baseline_jpeg_is_one_scan_and_no_other_is_believed_to_be():
    baseline = picture_files.native()["JPEG"]
    assert jpeg_scans(baseline, most=100) == 1
    start = baseline.index(b"\xff\xda")
    two = baseline[:start] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 300 + baseline[start:]
    assert jpeg_scans(two, most=100) == 101


def test_a_long_run_of_fill_bytes_is_read_once():
    for head in (b"\xff\xd8", b"\xff\xd8" + b"\xff\xda\x00\x02" * 200):
        assert jpeg_scans(head + b"\xff" * 5_000_000, most=100) <= 101


def test_fill_bytes_and_restart_markers_do_not_hide_scans():
    scan = b"\xff\xff\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\x12\xff\x00\x34\xff\xd0\x56"
    assert jpeg_scans(b"\xff\xd8" + scan * 300 + b"\xff\xd9", most=100) == 101


@given(
    st.binary(max_size=600),
    st.sampled_from([b"", b"II*\0", b"MM\0*", b"<", b"\xff\xfe", b"\xff\xd8\xff", b"\0\0\0\x18ftyp", b"RIFF"]),
)
def test_no_bytes_whatever_raise(body, head):
    outcome = sniff(head + body)
    assert isinstance(outcome, Refused) or outcome in NATIVE_FORMATS or outcome in CONVERTED_FORMATS
    assert 0 <= jpeg_scans(head + body * 40, most=5) <= 6


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_json_is_text(value):
    assert refusal(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")) == "This is text, not an image."
