"""What a run has done so far: its images and its jobs.

An image is `new` (to be sent), `packed` (its job is being prepared), `sent` (its job may exist at the service), `done` or `failed`.
A job is written here, with its key and its images, before it is sent. So a later run can send the same job again, and the service
answers with the job that it already has.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cli.run.scan import Found
from cli.run.sql import UPSERT
from cli.run.state_file import StateFile
from cli.run.types import Image, Row, SentJob, Tally

#: Failures that another try may mend, so that the same command sends these images again.
PASSING = (
    "fetch_failed",
    "fetch_timeout",
    "worker_crashed",
    "model_unavailable",
    "deadline_exceeded",
    "money_limit_reached",
    "results_expired",
    "cancelled",
    "internal_error",
    "unreadable",
)


class State(StateFile):
    """The images and jobs in the file. It may be used by several threads, but only by one process."""

    def untouched(self) -> bool:
        """Whether no job was ever written down, so that nothing is lost without the file."""
        return not self._rows("SELECT 1 FROM jobs LIMIT 1") and not self._rows(
            "SELECT 1 FROM images WHERE state = 'done' LIMIT 1"
        )

    # Images

    def begin_scan(self) -> None:
        """Forgets which images were chosen, and takes back jobs that were not yet written down when the last run ended."""
        with self._write() as sql:
            sql.execute("UPDATE images SET chosen = 0, changed = 0")
            sql.execute("UPDATE images SET state = 'new' WHERE state = 'packed'")

    def add(self, found: Iterable[Found]) -> None:
        """Adds images, or finds again those of earlier runs. `changed_files` then has those that look changed."""
        rows = [
            {
                "source": os.fsencode(each.source),
                "name": each.name,
                "is_url": each.is_url,
                "size": each.size,
                "mtime": each.mtime,
                "code": each.code,
                "message": each.message,
                "state": "failed" if each.code else "new",
            }
            for each in found
        ]
        with self._write() as sql:
            sql.executemany(UPSERT, rows)

    def changed_files(self) -> list[Image]:
        """The chosen images whose size or time is not as it was."""
        return [_image(row) for row in self._rows(f"SELECT {_IMAGE} FROM images WHERE changed AND chosen")]

    def unchanged(self, image: Image) -> None:
        """Says that the image has the same content as before."""
        with self._write() as sql:
            sql.execute("UPDATE images SET changed = 0 WHERE no = ?", (image.no,))

    def begin_anew(self, image: Image) -> None:
        """Says that the image has another content, so that an earlier answer is not its answer."""
        with self._write() as sql:
            sql.execute(
                "UPDATE images SET changed = 0, sha256 = '', job = NULL, place = NULL, tries = 0, result = NULL, code = fault, "
                "message = fault_text, state = CASE WHEN fault = '' THEN 'new' ELSE 'failed' END WHERE no = ?",
                (image.no,),
            )

    def choose_sample(self, size: int) -> None:
        """Keeps only `size` of the chosen images, spread evenly over their names. Each run chooses the same."""
        with self._write() as sql:
            found = [row[0] for row in sql.execute("SELECT no FROM images WHERE chosen AND fault = '' ORDER BY name")]
            kept = {found[at * len(found) // size] for at in range(size)} if len(found) > size else set(found)
            sql.execute("UPDATE images SET chosen = 0")
            sql.executemany("UPDATE images SET chosen = 1 WHERE no = ?", [(no,) for no in kept])

    def try_again(self, *, also_lasting: bool) -> None:
        """Makes failed images new: those that another try may mend, and with `also_lasting` all that could be sent."""
        which = "" if also_lasting else f"AND code IN ({', '.join('?' * len(PASSING))})"
        with self._write() as sql:
            sql.execute(
                "UPDATE images SET state = 'new', tries = tries + 1, job = NULL, place = NULL, code = '', message = '' "
                f"WHERE chosen AND state = 'failed' AND fault = '' {which}",
                () if also_lasting else PASSING,
            )

    def sizes(self) -> Iterator[tuple[bool, str, int]]:
        """For each image that will be sent, in the order of sending: whether it is a URL, its name, its bytes."""
        cursor = self._sql.execute(f"SELECT is_url, name, size FROM images WHERE {_TO_SEND} ORDER BY is_url, name, no")
        return ((bool(row[0]), row[1], row[2]) for row in cursor)

    def take_new(self, most: int) -> tuple[bool, list[Image]]:
        """Up to `most` images that are to be sent next, and whether they are URLs. They are all files, or all URLs."""
        for is_url in (False, True):
            query = f"SELECT {_IMAGE} FROM images WHERE {_TO_SEND} AND is_url = ? ORDER BY name, no LIMIT ?"
            if found := self._rows(query, is_url, most):
                return is_url, [_image(row) for row in found]
        return False, []

    def pack(self, images: Sequence[Image]) -> None:
        """Reserves the images for a job that is being prepared."""
        self._many("UPDATE images SET state = 'packed' WHERE no = ?", [(image.no,) for image in images])

    def unpack(self, images: Sequence[Image]) -> None:
        self._many("UPDATE images SET state = 'new' WHERE no = ? AND state = 'packed'", [(image.no,) for image in images])

    def set_hashes(self, images: Sequence[Image]) -> None:
        self._many("UPDATE images SET sha256 = ?, size = ? WHERE no = ?", [(each.sha256, each.size, each.no) for each in images])

    def fail(self, image: Image, code: str, message: str) -> None:
        """Says that the image can't be sent."""
        self._many("UPDATE images SET state = 'failed', code = ?, message = ? WHERE no = ?", [(code, message, image.no)])

    def rows(self) -> Iterator[Row]:
        """The chosen images with their outcomes, in the order of their names. Nothing may be written meanwhile."""
        query = f"SELECT {_ROW} FROM images WHERE chosen ORDER BY name, no"
        return map(_row, self._sql.execute(query))

    def rows_of(self, job: SentJob, *, sent: bool = False) -> dict[int, Row]:
        """Place in the job → the chosen image there. `sent`: only those whose outcome is not known yet."""
        which = "AND state = 'sent'" if sent else ""
        query = f"SELECT {_ROW}, place FROM images WHERE chosen AND job = ? {which} ORDER BY place"
        return {row[-1]: _row(row) for row in self._rows(query, job.no)}

    def faulty(self) -> list[Row]:
        """The chosen images that can't be sent, for example because the file is no image."""
        return [_row(row) for row in self._rows(f"SELECT {_ROW} FROM images WHERE chosen AND fault <> '' ORDER BY name")]

    def tally(self) -> Tally:
        [row] = self._rows(
            "SELECT COUNT(*), TOTAL(state = 'done'), TOTAL(state = 'failed'), TOTAL(size) FROM images WHERE chosen"
        )
        return Tally(total=row[0], done=int(row[1]), failed=int(row[2]), bytes=int(row[3]))

    # Jobs

    def write_job(self, key: str, fields: Mapping[str, Any], images: Sequence[Image]) -> SentJob:
        """Writes a job down before it is sent, or finds the one with the same key again."""
        with self._write() as sql:
            sql.execute(
                "INSERT INTO jobs (key, state, fields, images, created) VALUES (?, 'sending', ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET state = 'sending'",
                (key, json.dumps(fields), len(images), time.time()),
            )
            [no] = sql.execute("SELECT no FROM jobs WHERE key = ?", (key,)).fetchone()
            placed = [(no, place, image.no) for place, image in enumerate(images)]
            sql.executemany("UPDATE images SET state = 'sent', job = ?, place = ? WHERE no = ?", placed)
        return self._jobs("no = ?", no)[0]

    def unfinished_jobs(self) -> list[SentJob]:
        """The jobs that were sent, or were about to be, and whose answers have not been read."""
        return self._jobs("state IN ('sending', 'open')")

    def jobs_with_failures(self) -> list[SentJob]:
        """The jobs that have ended with chosen images that failed."""
        failed = "SELECT job FROM images WHERE chosen AND state = 'failed' AND fault = '' AND job IS NOT NULL"
        return self._jobs(f"state = 'ended' AND no IN ({failed})")

    def images_of(self, job: SentJob) -> list[Image]:
        """The images of the job, in its order. Fewer than `job.images` if some have changed since."""
        return [_image(row) for row in self._rows(f"SELECT {_IMAGE} FROM images WHERE job = ? ORDER BY place", job.no)]

    def accepted(self, job: SentJob, service_id: str) -> SentJob:
        """Keeps the id that the service gave to the job."""
        self._many("UPDATE jobs SET id = ?, state = 'open' WHERE no = ?", [(service_id, job.no)])
        return self._jobs("no = ?", job.no)[0]

    def reopen(self, job: SentJob) -> None:
        """Says that the failed images of the job are tried again in a next round of it."""
        with self._write() as sql:
            sql.execute("UPDATE jobs SET state = 'open' WHERE no = ?", (job.no,))
            sql.execute("UPDATE images SET state = 'sent' WHERE job = ? AND state = 'failed'", (job.no,))

    def dissolve(self, job: SentJob) -> None:
        """Makes the images of a job new that does not exist at the service."""
        with self._write() as sql:
            sql.execute(
                "UPDATE images SET state = 'new', job = NULL, place = NULL, tries = tries + 1 WHERE job = ? AND state = 'sent'",
                (job.no,),
            )
            sql.execute("DELETE FROM jobs WHERE no = ?", (job.no,))

    def spent(self, job: SentJob, credits_: int, money: float) -> None:
        self._many("UPDATE jobs SET credits = ?, money = ? WHERE no = ?", [(credits_, money, job.no)])

    def take_outcomes(
        self, job: SentJob, outcomes: Iterable[tuple[int, str, str, Any]], evidence: Mapping[int, Mapping[str, Any]] | None = None
    ) -> None:
        """Ends the job. `outcomes`: place in the job, code (empty: succeeded), message, result. Images without one become new.

        `evidence`: by place; read after `outcomes`, which may fill it.
        """
        rows = [
            (
                (code and "failed") or "done",
                code,
                message,
                None if code else json.dumps(result, ensure_ascii=False),
                job.no,
                place,
            )
            for place, code, message, result in outcomes
        ]
        found = [(json.dumps(each, ensure_ascii=False), job.no, place) for place, each in (evidence or {}).items()]
        with self._write() as sql:
            sql.executemany(
                "UPDATE images SET state = ?, code = ?, message = ?, result = ? WHERE job = ? AND place = ? AND state = 'sent'",
                rows,
            )
            sql.executemany("INSERT OR REPLACE INTO evidence SELECT no, ? FROM images WHERE job = ? AND place = ?", found)
            sql.execute("UPDATE jobs SET state = 'ended' WHERE no = ?", (job.no,))
            sql.execute(
                "UPDATE images SET state = 'new', job = NULL, tries = tries + 1 WHERE job = ? AND state = 'sent'", (job.no,)
            )

    def cost(self) -> tuple[int, float]:
        """Credits and dollars of all jobs, also those of earlier runs."""
        [row] = self._rows("SELECT TOTAL(credits), TOTAL(money) FROM jobs")
        return int(row[0]), float(row[1])

    def _jobs(self, condition: str, *given: Any) -> list[SentJob]:
        rows = self._rows(f"SELECT no, key, id, fields, images, created FROM jobs WHERE {condition} ORDER BY no", *given)
        return [
            SentJob(no=row[0], key=row[1], id=row[2], fields=json.loads(row[3]), images=row[4], created=row[5]) for row in rows
        ]


_IMAGE = "no, name, source, size, sha256, tries"
_ROW = "name, state, code, message, result, (SELECT found FROM evidence WHERE image = images.no)"
_TO_SEND = "chosen AND state = 'new'"


def _row(row: Sequence[Any]) -> Row:
    return Row(row[0], row[1], row[2], row[3], *(json.loads(each) if each is not None else None for each in row[4:6]))


def _image(row: Sequence[Any]) -> Image:
    return Image(row[0], row[1], os.fsdecode(row[2]), row[3], row[4], row[5])
