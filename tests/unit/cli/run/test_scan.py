"""What a scan finds in folders, globs and lists."""

from __future__ import annotations

import os

import pytest

from cli.exits import CommandFault
from cli.run.scan import Found, Skipped, Wanted, scan
from tests.fakes.gemini import numbered_picture

PNG = numbered_picture(1)


@pytest.fixture
def folder(tmp_path):
    for name in ("b ü.png", "a.dat", "inner/c.png", ".git/d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PNG)
    (tmp_path / "notes.txt").write_text("hello")
    return tmp_path


def found(paths, **wanted):
    return {each.name: each for each in scan([str(path) for path in paths], Wanted(**wanted)) if isinstance(each, Found)}


def skipped(paths, **wanted):
    return [each.name for each in scan([str(path) for path in paths], Wanted(**wanted)) if isinstance(each, Skipped)]


def test_the_first_bytes_and_not_the_name_say_what_is_an_image(folder):
    assert sorted(found([folder])) == ["a.dat", "b ü.png", "inner/c.png"]
    assert skipped([folder]) == [".git/", "notes.txt"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "HEIC", "BMP", "GIF", "TIFF", "AVIF"])
def test_every_common_format_is_found(tmp_path, kind):
    (tmp_path / "picture").write_bytes(numbered_picture(1, format=kind))
    assert not found([tmp_path])["picture"].code


def test_a_targa_file_without_magic_bytes_is_found(tmp_path):
    header = bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 64, 0, 24, 0])
    (tmp_path / "old.tga").write_bytes(header + b"\x7f" * (64 * 64 * 3))
    assert not found([tmp_path])["old.tga"].code


def test_a_file_that_is_called_a_picture_and_is_none_gets_a_row(folder):
    (folder / "broken.jpg").write_text("<html></html>")
    (folder / "empty.jpg").write_bytes(b"")
    rows = found([folder])
    assert (rows["broken.jpg"].code, rows["empty.jpg"].code) == ("unsupported_format", "image_empty")


def test_a_file_over_the_limit_fails_alone_with_its_size(folder):
    with (folder / "huge.png").open("wb") as file:
        file.write(PNG)
        file.truncate(21 * 1024 * 1024)
    [huge] = [each for each in found([folder]).values() if each.code]
    assert (huge.name, huge.code) == ("huge.png", "image_too_large")
    assert "21.0 MB" in huge.message


def test_names_begin_with_the_path_as_written_if_several_are_named(folder):
    assert sorted(found([folder / "inner", folder / "a.dat"])) == sorted([f"{folder}/a.dat", f"{folder}/inner/c.png"])


def test_globs_are_expanded_and_choose_files(folder):
    assert list(found([folder / "*.png"])) == [f"{folder}/b ü.png"]
    assert sorted(found([folder], include=("*.png",), exclude=("inner/*",))) == ["b ü.png"]
    assert sorted(found([folder], recursive=False)) == ["a.dat", "b ü.png"]


def test_urls_stand_beside_files(folder):
    rows = found(["https://pictures.example/1.png", folder])
    assert rows["https://pictures.example/1.png"].is_url


def test_a_path_that_is_not_there_is_a_fault_of_usage(tmp_path):
    with pytest.raises(CommandFault) as fault:
        list(scan([str(tmp_path / "none")], Wanted()))
    assert fault.value.exit_code == 2
    with pytest.raises(CommandFault, match="No file fits"):
        list(scan([str(tmp_path / "*.png")], Wanted()))


def test_a_folder_that_cannot_be_read_gets_a_row_unless_it_is_excluded(folder, monkeypatch):
    (folder / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found([folder])["locked/"].message == "The folder can't be read: Permission denied."
    assert "locked/" not in found([folder], exclude=("locked",))
    assert "locked/" in skipped([folder], exclude=("locked",))


def test_own_files_are_not_mentioned(folder):
    (folder / "out.csv.state").write_bytes(b"x")
    assert "out.csv.state" not in skipped([folder], ignore=frozenset({str(folder / "out.csv.state")}))


def test_a_name_that_is_no_utf_8_is_shown_as_text_and_still_found(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")  # noqa: PTH118
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(PNG)
    [only] = found([tmp_path]).values()
    assert only.name == "caf\ufffd.png"
    assert os.path.exists(only.source)  # noqa: PTH110
