"""The whole service in one process: the real API, steps and SQL, with fakes of everything outside the service."""

from __future__ import annotations

import base64
import json
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from sqlalchemy import Table, func, select, update
from werkzeug.test import TestResponse

import api.wiring
import workers.wiring
from api.app import create_app
from api.places import Places
from api.previews import Previews
from config.engines import ENGINES, EngineKind
from config.settings import Settings, load_settings
from pipeline.models import known
from pipeline.ports import Engine
from pipeline.scratch_key import owner_of
from storage import schema
from storage.account import accounts, ledger
from storage.database import now_ms
from storage.job import totals
from tests.described import DescribedClient
from tests.fakes.deliver import FakeDeliver
from tests.fakes.engine import FakeEngine
from tests.fakes.images import FakeFetch, fake_decode
from tests.fakes.reencode import fake_preview
from tests.fakes.scratch import MemoryScratch
from tests.fakes.signals import MemorySignals
from tests.fakes.text_reader import FakeTextReader
from tests.migrated import migrated_database
from workers.leases import LeaseKeeper
from workers.run import run_step
from workers.supervisor import Supervisor

URL = "/api/v1/extract-image"
CREDITS = 100_000
NONE = 0  #: is put where announced steps are, and is none


class Harness:
    """A service with one account. `workers_count` threads run the announced steps. Without threads, call `drain` to run them."""

    def __init__(
        self,
        folder: Path,
        *,
        engine: Engine | None = None,
        workers_count: int = 2,
        held_seconds: float = 0.3,
        kind: EngineKind = ENGINES["gemini"],
        signals: MemorySignals | None = None,
        **settings: str,
    ) -> None:
        self.settings: Settings = load_settings({"DATA_DIR": str(folder), **settings})
        self.database = migrated_database(self.settings.database_url)
        self.scratch = MemoryScratch()
        self.signals = signals or MemorySignals()
        self.engine = engine or FakeEngine()
        self.models = {name: known(name) for name in (self.engine.model, "fake-2", "fake-3")}
        self.text_reader = FakeTextReader()
        self.fetch = FakeFetch()
        self.deliver = FakeDeliver()
        self.decoding = ThreadPoolExecutor(2)
        self.leases = LeaseKeeper(
            self.database, lease_seconds=self.settings.lease_seconds, step_seconds=self.settings.step_seconds
        )
        self.stopping = False
        self.web = api.wiring.WebParts(
            settings=self.settings,
            database=self.database,
            scratch=self.scratch,
            signals=self.signals,
            secret_key=b"secret",
            rate=parse(self.settings.rate_limit),
            limiter=SlidingWindowCounterRateLimiter(MemoryStorage()),
            engine=self.engine.name,
            models=self.models,
            warnings=self.engine.warnings,
            waiting_places=Places(self.settings.max_waiters),
            large_bodies=Places(self.settings.max_large_bodies),
            held_seconds=held_seconds,
            previews=Previews(fake_preview),
            kind=kind,
            stopping=lambda: self.stopping,
        )
        self.work = workers.wiring.WorkerParts(
            settings=self.settings,
            database=self.database,
            scratch=self.scratch,
            signals=self.signals,
            leases=self.leases,
            fetch=self.fetch,
            decode=fake_decode,
            decoding=self.decoding,
            engine=self.engine,
            text_reader=self.text_reader,
            ocr_places=workers.wiring.ocr_places(self.settings),
            models=self.models,
            deliver=self.deliver,
            secret_key=b"secret",
            webhook_places=workers.wiring.webhook_places(self.settings),
            owner="test",
        )
        self.supervisor = Supervisor(database=self.database, scratch=self.scratch, signals=self.signals)
        self.account, self.key = self.new_key(CREDITS)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(workers_count)]
        for thread in self._threads:
            thread.start()

    def new_key(self, credits: int = CREDITS) -> tuple[str, str]:  # noqa: A002 - the clearest name
        """Creates an account with credits and an API key. Returns both."""
        with self.database.write() as connection:
            account = accounts.create_account(connection, "test")
            if credits:
                ledger.grant(connection, account, credits)
            return account, accounts.create_key(connection, account=account, name="test", secret_key=b"secret")

    @cached_property
    def app(self) -> Flask:
        """The front door. Many tests of workers and of rows need none, and it takes 20 ms to make."""
        app = create_app(self.web)
        app.test_client_class = DescribedClient
        return app

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def post(self, body: Any, *, key: str | None = None, headers: dict[str, str] | None = None) -> TestResponse:
        """POSTs JSON, or raw bytes, to the compatible endpoint with the account's key."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json", **(headers or {})}
        return self.client.post(URL, data=data, headers={name: value for name, value in sent.items() if value})

    def ask(self, method: str, path: str, *, key: str | None = None, **options: Any) -> TestResponse:
        """Sends any request with the account's key."""
        headers = {"Authorization": f"Bearer {key or self.key}", **options.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, **options)

    def get(self, path: str, *, key: str | None = None) -> TestResponse:
        return self.client.get(path, headers={"Authorization": f"Bearer {key or self.key}"})

    def page(self, url: str, data: bytes = b"img") -> str:
        """Makes the fake fetcher serve `data` at a URL. Returns the URL."""
        self.fetch.pages[url] = data
        return url

    def urls(self, count: int) -> list[str]:
        """`count` URLs that serve the images `img0`, `img1` and so on."""
        return [self.page(f"https://pictures.example/{index}", f"img{index}".encode()) for index in range(count)]

    def drain(self) -> None:
        """Runs steps until none is announced and none is due."""
        while True:
            self.supervisor.ring()
            try:
                step = self.signals.rung.get_nowait()
            except queue.Empty:
                return
            if step != NONE:
                run_step(self.work, step)

    def balance(self, account: str | None = None) -> tuple[int, int, int]:
        """The account's available, held and charged credits."""
        with self.database.read() as connection:
            columns = (schema.accounts_table.c.available, schema.accounts_table.c.held, schema.accounts_table.c.charged)
            row = connection.execute(select(*columns).where(schema.accounts_table.c.id == (account or self.account))).one()
            return row.available, row.held, row.charged

    def ledger(self, job: str | None = None) -> list[tuple[str, int]]:
        """Kind and amount of a job's ledger rows, or of all ledger rows, oldest first."""
        with self.database.read() as connection:
            query = select(schema.ledger_table.c.kind, schema.ledger_table.c.amount).order_by(schema.ledger_table.c.id)
            return [tuple(row) for row in connection.execute(query.where(schema.ledger_table.c.job == job) if job else query)]

    def count_rows(self, table: str) -> int:
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(schema.metadata.tables[table])).scalar_one()

    def skip_waits(self) -> None:
        """Makes every waiting step due now."""
        self._set(schema.steps_table, not_before=0)

    def age_rings(self) -> None:
        """Makes every announcement old, so that steps are announced again."""
        self._set(schema.steps_table, rung_at=0)

    def make_overdue(self) -> None:
        self._set(schema.jobs_table, deadline_at=0)

    def make_expired(self) -> None:
        self._set(schema.jobs_table, expires_at=1)

    def expire_inputs(self) -> None:
        """Makes the time of all kept images over, and has the supervisor and the workers delete them."""
        with self.database.write() as connection:
            kept = schema.jobs_table.c.inputs_expire_at.is_not(None)
            connection.execute(update(schema.jobs_table).where(kept).values(inputs_expire_at=1))
        self.supervisor.expire_inputs()
        self.drain()

    def _set(self, table: Table, **values: Any) -> None:
        with self.database.write() as connection:
            connection.execute(update(table).values(**values))

    def close(self) -> None:
        """Ends the threads, runs the remaining steps, and checks the invariants of every test."""
        self._stop.set()
        for _ in self._threads:
            self.signals.rung.put(NONE)  # wakes one that waits
        for thread in self._threads:
            thread.join()
        self.signals.close()
        try:
            self.drain()
            self.supervisor.expire_inputs()
            self.drain()
            self._check_nothing_left()
        finally:
            self.leases.close()
            self.decoding.shutdown()
            self.database.close()

    def _work(self) -> None:
        while not self._stop.is_set():
            step = self.signals.rung.get()
            if step != NONE:
                run_step(self.work, step)

    def _check_nothing_left(self) -> None:
        """Checks that finished jobs left no scratch object and hold no credits, that credits are conserved, and that no round was
        charged twice.

        The only scratch objects that a finished job may have are all of its uploaded images, until they expire.
        """
        jobs, accs, rows = schema.jobs_table, schema.accounts_table, schema.ledger_table
        with self.database.read() as connection:
            open_jobs = set(connection.execute(select(jobs.c.id).where(jobs.c.finished_at.is_(None))).scalars())
            not_expired = jobs.c.finished_at.is_not(None), jobs.c.keep_ms > 0, jobs.c.inputs_expire_at > now_ms()
            kept = select(schema.chunks_table.c.input).join(jobs).where(*not_expired, schema.chunks_table.c.input.is_not(None))
            inputs = sorted(set(connection.execute(kept).scalars()))
            this_round = (rows.c.job == jobs.c.id) & (rows.c.round == jobs.c.round)
            held = connection.execute(
                select(func.coalesce(func.sum(rows.c.amount), 0))
                .join(jobs, this_round)
                .where(rows.c.kind == "reserve", jobs.c.finished_at.is_(None))
            ).scalar_one()
            total_held = connection.execute(select(func.sum(accs.c.held))).scalar_one()
            money = connection.execute(select(func.sum(accs.c.available + accs.c.held + accs.c.charged))).scalar_one()
            granted = connection.execute(select(func.sum(rows.c.amount)).where(rows.c.kind == "grant")).scalar_one()
            written = select(rows.c.job, rows.c.round, rows.c.kind).where(rows.c.job.is_not(None))
            kinds = sorted(tuple(row) for row in connection.execute(written))
            begun = {
                (row.id, row.round)
                for row in connection.execute(select(jobs.c.id, jobs.c.round).where(jobs.c.finished_at.is_(None)))
            }
            wrong = totals.check(connection)
        left = sorted(key for key in self.scratch.objects if owner_of(key) not in open_jobs)
        assert left == inputs, "scratch objects of jobs that are over, or uploaded images that should have been kept"
        assert wrong == totals.Wrong(accounts=[], scratch=0), "totals that differ from the rows of the jobs"
        assert total_held == held, "credits held that belong to no open job"
        assert money == granted, "credits made or lost"
        over = {(job, round_) for job, round_, _ in kinds} - begun
        expected = [(*each, kind) for each in over for kind in ("reserve", "charge", "release")]
        assert kinds == sorted([*expected, *((*each, "reserve") for each in begun)]), "each round has its three movements"


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[Harness]:
    harness = Harness(folder, **options)
    try:
        yield harness
    finally:
        harness.close()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
