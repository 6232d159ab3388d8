"""Finds the images: walks folders, expands globs, reads lists. The first bytes of a file say whether it is an image."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from cli.exits import CommandFault, Exit
from pipeline.decode.sniff import sniff
from pipeline.types import MAX_IMAGE_BYTES, Refused

HEAD = 4096  #: bytes that decide the format of nearly every file
#: File names that promise an image. If the bytes are none, the file gets a row that says so, because its owner expects one.
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".heic",
        ".heif",
        ".avif",
        ".gif",
        ".tif",
        ".tiff",
        ".bmp",
        ".psd",
        ".jp2",
        ".jxl",
        ".ico",
        ".tga",
        ".dds",
        ".pcx",
        ".qoi",
    ]
)
OUR_FILES = (".state", ".state-journal", ".part")  #: ends of the names of our own files beside an output
#: (palette, picture type) at bytes 1 and 2 of a TGA. It has no magic bytes, so only the whole file tells it from others.
_TGA = frozenset((palette, kind) for palette in (0, 1) for kind in (1, 2, 3, 9, 10, 11))


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An image, or a file that was meant to be one."""

    name: str  #: for the table: the path relative to what was named, or the URL
    source: str  #: the absolute path, or the URL; tells images apart
    is_url: bool = False
    size: int = 0  #: bytes; 0 for a URL
    mtime: int = 0  #: nanoseconds since 1970
    code: str = ""  #: why it can't be sent; empty if it can
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A file or folder that is left out."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which files are looked at."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    recursive: bool = True
    ignore: frozenset[str] = frozenset()  #: absolute paths of our own files

    def takes(self, name: str) -> bool:
        """Whether the globs let the name through. A glob may match the whole name or its last part."""
        last = name.rpartition("/")[2]

        return (not self.include or _fits(self.include, name, last)) and not _fits(self.exclude, name, last)

    def leaves_out(self, folder: str) -> bool:
        """Whether the globs leave out everything in a folder. Its name ends with a slash."""
        return _fits(self.exclude, folder, folder.rstrip("/").rpartition("/")[2])


def _fits(globs: tuple[str, ...], name: str, last: str) -> bool:
    return any(fnmatchcase(name, each) or fnmatchcase(last, each) for each in globs)


def scan(paths: Iterable[str], wanted: Wanted) -> Iterator[Found | Skipped]:
    """Everything that the paths lead to, in the order in which the disk is walked. Raises CommandFault for a path that is not there.

    With a single folder, names are relative to it. With several paths, a name begins with its path as written.
    """
    named = list(paths)
    for text in named:
        if is_url(text):
            yield Found(name=text, source=text, is_url=True)
        elif os.path.isdir(text):  # noqa: PTH112 - os.path keeps names that are no text
            prefix = "" if len(named) == 1 else f"{os.path.normpath(text)}/"
            yield from _folder(text, prefix.removeprefix("./"), wanted)
        else:
            yield from _files(text, wanted)


def is_image(path: Path) -> bool:
    """Whether the first bytes of a file are those of an image. False if it can't be read."""
    try:
        return _refusal(str(path), 0) is None
    except OSError:
        return False


def is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def as_text(path: str) -> str:
    """The path as text. Bytes that are no UTF-8 become replacement characters."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "replace")


def _files(text: str, wanted: Wanted) -> Iterator[Found | Skipped]:
    """A file that was named, or the files of a glob that the shell did not expand."""
    names = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - it takes absolute globs too
    if not names:
        what = "No file fits" if glob.has_magic(text) else "There is no file or folder called"
        raise CommandFault(Exit.USAGE, f"{what} {as_text(text)}.")
    for name in names:
        if os.path.isdir(name):  # noqa: PTH112
            yield from _folder(name, f"{os.path.normpath(name)}/", wanted)
        elif wanted.takes(shown := as_text(os.path.normpath(name)).replace(os.sep, "/")):
            yield _looked_at(name, shown, named=names == [text])


def _folder(folder: str, prefix: str, wanted: Wanted) -> Iterator[Found | Skipped]:
    """Walks a folder. Hidden folders and links to folders are left out, so that no walk is endless."""
    left = [(os.path.abspath(folder), prefix)]  # noqa: PTH100 - Path would follow links
    while left:
        path, before = left.pop()
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            # It gets a row, because there may be pictures in it, which nobody would miss otherwise.
            name, reason = as_text(before or f"{path}/"), error.strerror or "it can't be read"
            if wanted.leaves_out(name):
                yield Skipped(name=name, reason=reason)
            else:
                yield Found(name=name, source=path, code="unreadable", message=f"The folder can't be read: {reason}.")
            continue
        inner: list[tuple[str, str]] = []
        for entry in found:
            name = as_text(f"{before}{entry.name}")
            if entry.is_dir(follow_symlinks=False):
                if entry.name.startswith("."):
                    yield Skipped(name=f"{name}/", reason="a hidden folder")
                elif wanted.recursive:
                    inner.append((entry.path, f"{before}{entry.name}/"))
            elif entry.is_dir():
                yield Skipped(name=f"{name}/", reason="a link to a folder")
            elif wanted.takes(name) and entry.path not in wanted.ignore:
                yield _looked_at(entry.path, name, named=False)
        left += reversed(inner)


def _looked_at(path: str, name: str, *, named: bool) -> Found | Skipped:
    """Reads the first bytes. `named`: the user named this file, so it gets a row even if it is no image."""
    expected = named or os.path.splitext(path)[1].lower() in SUFFIXES  # noqa: PTH122 - Path takes three times as long
    source = path if os.path.isabs(path) else os.path.abspath(path)  # noqa: PTH100, PTH117 - Path would follow links
    try:
        facts = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(facts.st_mode):
            return Skipped(name=name, reason="not a file")
        size, mtime = facts.st_size, facts.st_mtime_ns
        refused = _refusal(path, size)
    except OSError as error:
        reason = f"The file can't be read: {error.strerror}."
        if not expected:
            return Skipped(name=name, reason=reason)
        return Found(name=name, source=source, code="unreadable", message=reason)
    if refused and not expected:
        return Skipped(name=name, reason=refused.detail)
    code, message = (refused.code.value, refused.detail) if refused else ("", "")
    if not refused and size > MAX_IMAGE_BYTES:
        code, message = "image_too_large", too_large(size, MAX_IMAGE_BYTES)
    return Found(name=name, source=source, size=size, mtime=mtime, code=code, message=message)


def too_large(size: int, most: int) -> str:
    return f"The file has {size / 1024 / 1024:.1f} MB; the service takes {most / 1024 / 1024:g} MB at most."


def _refusal(path: str, size: int) -> Refused | None:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # for 100,000 files this is noticeably faster than open()
    try:
        head = os.read(number, HEAD)
        kind = sniff(head)
        if isinstance(kind, Refused) and size > len(head) and tuple(head[1:3]) in _TGA and size <= MAX_IMAGE_BYTES:
            kind = sniff(os.pread(number, size, 0))
    finally:
        os.close(number)
    return kind if isinstance(kind, Refused) else None
