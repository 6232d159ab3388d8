"""Lists the licence of every locked package, and fails if one is not allowed: `python -m tools.licences [--list]`.

It reads what the installed packages say of themselves, and asks nobody. A package says it as an SPDX expression, in words, or by a
classifier; the first of these that is understood counts. Libraries in C that a wheel brings are not in what it says: see BROUGHT.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.markers import Marker

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"

#: Licences that demand no more than that their text is kept, and MPL-2.0, which concerns changed files of the package only.
ALLOWED = frozenset(
    (
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
        "Zlib",
    )
)
#: Package → another licence that it may have, and why.
EXCEPTIONS = {
    "psycopg": ("LGPL-3.0-only", "used as it is published; whoever runs the service can replace it"),
    "psycopg-binary": ("LGPL-3.0-only", "as psycopg"),
}
#: Package whose metadata names no licence → the SPDX expression of the licence file in its wheel.
IN_FILE = {
    "axe-playwright-python": "MIT AND MPL-2.0",  # MPL-2.0 is that of axe-core, which it brings
    "quickjs-ng": "MIT",
}
#: Package → the libraries in its wheel that have a stricter licence than the package, for the list.
BROUGHT = {
    "pillow-heif": "libheif and libde265 (LGPL-3.0), libx265 (GPL-2.0-or-later), which only encodes",
    "pycurl": "libcurl (curl) and its libraries",
}
#: What packages say → the SPDX expression.
WORDS = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mit style": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
}
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==\S+(?: ; ([^\\\n]+))?", re.MULTILINE)
_SPDX = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR) [A-Za-z0-9.+-]+)*")


def locked(lock: str) -> dict[str, bool]:
    """The packages of a lock file, and whether each is for this system."""
    found: dict[str, bool] = {}
    for name, marker in _REQUIREMENT.findall(lock):
        found[name] = found.get(name, False) or not marker or Marker(marker.strip()).evaluate()
    return found


def licence_of(said: Message | Mapping[str, str], classifiers: list[str]) -> str:
    """The SPDX expression of a package, by its metadata. Empty if it says nothing that is understood."""
    words: list[str] = [said["License-Expression"] or "", (said["License"] or "").strip()]
    words += [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: OSI Approved :: ")]
    for word in filter(None, words):
        if word.lower() in WORDS:
            return WORDS[word.lower()]
        if _SPDX.fullmatch(word) and set(re.split(r" (?:AND|OR) ", word)) <= _known():
            return word
    return ""


def is_allowed(expression: str, also: str = "") -> bool:
    """Whether one side of each OR, with all that its ANDs name, is allowed. `also`: a licence that is allowed too."""
    return any(set(side.split(" AND ")) <= ALLOWED | {also} for side in expression.split(" OR "))


def faults(packages: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with packages and their licences, one line each."""
    for name, licence in packages.items():
        also, _ = EXCEPTIONS.get(name, ("", ""))
        if not licence:
            yield f"{name} says no licence that is understood. Look it up, and add its words to WORDS."
        elif not is_allowed(licence, also):
            yield f"{name} has the licence {licence}, which is not allowed. Replace it, or add it to EXCEPTIONS with a reason."


def _known() -> set[str]:
    return {*ALLOWED, *(licence for licence, _ in EXCEPTIONS.values()), "LGPL-2.1-only"}


def main() -> int:
    here: dict[str, str] = {}
    elsewhere: list[str] = []
    missing: list[str] = []
    for name, wanted in locked(LOCK.read_text()).items():
        try:
            said = metadata(name)
        except PackageNotFoundError:
            (missing if wanted else elsewhere).append(name)
            continue
        here[name] = licence_of(said, said.get_all("Classifier") or []) or IN_FILE.get(name, "")  # type: ignore[arg-type]
    if "--list" in sys.argv:
        for name, licence in here.items():
            notes = [
                f"allowed: {EXCEPTIONS[name][1]}" if name in EXCEPTIONS else "",
                f"brings {BROUGHT[name]}" if name in BROUGHT else "",
            ]
            print("  ".join(filter(None, [f"{name:28}", licence or "?", *notes])))
    found = [*faults(here), *(f"{name} is not installed, so its licence is not known. Run `make install`." for name in missing)]
    print(*found, sep="\n", end="\n" if found else "")
    print(
        f"Licences: {len(here)} locked packages, {len(found)} faults. For other systems, not looked at: {', '.join(elsewhere) or 'none'}."
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
