"""Writes what the scan finds into the state file, and says what was found and what was left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from cli.exits import CommandFault, Exit
from cli.run.options import Options
from cli.run.progress import Reporter, counted, megabytes
from cli.run.scan import Found, Skipped, Wanted, as_text, scan
from cli.run.send import file_hash
from cli.run.state import State
from cli.run.types import Image

BATCH = 1000  #: images that are written to the state file at once
MOST_SKIPPED = 8  #: names of skipped files that are shown


@dataclass
class _Seen:
    """What the scan has come across besides the images."""

    folders: set[str] = field(default_factory=set)
    skipped: list[Skipped] = field(default_factory=list)  #: the first ones
    left_out: int = 0  #: how many were skipped in all

    def images(self, found: Iterator[Found | Skipped]) -> Iterator[Found]:
        for each in found:
            if isinstance(each, Skipped):
                self.left_out += 1
                if len(self.skipped) < MOST_SKIPPED:
                    self.skipped.append(each)
                continue
            if not each.is_url:
                self.folders.add(os.path.dirname(each.source))  # noqa: PTH120 - faster for 100,000 files
            yield each

    def told(self) -> str:
        if not self.left_out:
            return ""
        more = f" and {self.left_out - len(self.skipped)} more" if self.left_out > len(self.skipped) else ""
        return f"; skipped {self.left_out}: {', '.join(each.name for each in self.skipped)}{more}"


def gather(options: Options, state: State, path: Path, reporter: Reporter) -> None:
    """Chooses the images of this run. `path`: the state file. Raises CommandFault if there is none."""
    seen = _Seen()
    state.begin_scan()
    images = seen.images(scan(options.paths, _wanted(options, path)))
    while batch := list(islice(images, BATCH)):
        state.add(batch)
    for image in state.changed_files():
        _look_again(state, image)
    tally = state.tally()
    if not tally.total:
        fits = " that fits --include and --exclude" if options.include or options.exclude else ""
        raise CommandFault(Exit.USAGE, f"There is no image{fits} in {', '.join(map(as_text, options.paths[:3]))}{seen.told()}.")
    where = f" in {counted(len(seen.folders), 'folder')}" if seen.folders else ""
    size = f" ({megabytes(tally.bytes)})" if tally.bytes else ""
    text = f"Found {counted(tally.total, 'image')}{size}{where}{seen.told()}"
    skipped = [{"file": each.name, "reason": each.reason} for each in seen.skipped]
    facts = {"images": tally.total, "bytes": tally.bytes, "folders": len(seen.folders), "skipped": seen.left_out}
    reporter.say("found", text, **facts, skippedFiles=skipped)
    if options.sample is not None:
        state.choose_sample(options.sample)
        reporter.say("sample", f"A sample of {counted(state.tally().total, 'image')} is read.")
    for row in state.faulty():
        reporter.failure(row.name, row.code, row.message)


def _wanted(options: Options, path: Path) -> Wanted:
    own = [*options.outputs.values(), path]
    names = {f"{each.absolute()}{suffix}" for each in own for suffix in ("", "-journal", ".part")}
    return Wanted(
        include=options.include,
        exclude=options.exclude,
        recursive=options.recursive,
        ignore=frozenset(map(os.path.normpath, names)),
    )


def _look_again(state: State, image: Image) -> None:
    """Compares the hash of a file whose size or time has changed, because a copied file is often the same."""
    try:
        same = bool(image.sha256) and file_hash(image.source)[0] == image.sha256
    except OSError:
        same = False
    (state.unchanged if same else state.begin_anew)(image)
