"""docs/reference/sizes.md: its tables are those that its figures give, and its command deletes old jobs and nothing else."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import func, make_url, select, update

from bench.sizes import FIGURES, PAGE, page_with
from storage import schema
from storage.database import Database, now_ms
from testbed import ROOT
from tests.e2e.pages import commands, paste
from tests.rows import job_row, new_account, new_job

DAY_MS = 86_400_000


def test_the_tables_are_made_from_the_figures():
    if not FIGURES.exists():
        pytest.skip("nobody has measured yet: python -m bench.scale --json docs/reference/scale.json")
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    assert page_with(page, figures) == page, "run `python -m bench.sizes`"


@pytest.fixture
def database(postgres_server, postgres_template):
    with postgres_server.database(template=postgres_template) as url:
        opened = Database(url)
        yield opened
        opened.close()


def ended(database: Database, account: str, *, days: int, **values: object) -> str:
    job = new_job(database, account, images=2)
    with database.write() as connection:
        at = {"finished_at": now_ms() - days * DAY_MS, "expires_at": None, "stored_bytes": 700, **values}
        connection.execute(update(schema.jobs_table).where(schema.jobs_table.c.id == job).values(**at))
    return job


def test_the_command_of_the_page_deletes_old_jobs_and_nothing_else(database, postgres_server, tmp_path):
    account = new_account(database)
    old = [ended(database, account, days=91), ended(database, account, days=400)]
    kept = [
        ended(database, account, days=89),
        ended(database, account, days=91, expires_at=now_ms() + DAY_MS),
        new_job(database, account),
    ]
    with database.write() as connection:
        jobs, accounts = schema.jobs_table.c, schema.accounts_table
        connection.execute(update(accounts).values(stored_bytes=select(func.sum(jobs.stored_bytes)).scalar_subquery()))
        ledger = connection.scalar(select(func.count()).select_from(schema.ledger_table))
    [block] = commands(str(PAGE.relative_to(ROOT)))["Archive old jobs"]
    name = str(make_url(str(database.engine.url)).database)
    paste(block.replace("extract_image", name), tmp_path, postgres_server.environment())
    with database.read() as connection:
        left = connection.scalars(select(schema.jobs_table.c.id)).all()
        for table in (schema.images_table, schema.chunks_table, schema.steps_table):
            assert set(connection.scalars(select(table.c.job)).all()) == set(kept)
        stored = connection.scalar(select(schema.accounts_table.c.stored_bytes))
        assert connection.scalar(select(func.count()).select_from(schema.ledger_table)) == ledger
    assert set(left) == set(kept)
    assert not set(left) & set(old)
    assert stored == sum(job_row(database, job).stored_bytes for job in kept)
