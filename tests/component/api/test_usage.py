"""What an account has and what it spent, for its owner and nobody else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from storage import schema
from tests.harness import CREDITS, b64

USAGE = "/api/v1/usage"
BODY = {"inputMethod": "base64", "images": [b64(b"img0"), b64(b"img1")], "prompt": "p"}
DAY_MS = 86_400_000


def rows(page):
    return [(row["kind"], row["credits"], row["job"]) for row in page["ledger"]]


def test_the_balance_and_each_movement_are_shown_with_the_job_and_where_it_came_from(harness):
    harness.post(BODY, headers={"Request-Source": "shop"})
    shown = harness.get(USAGE).json
    assert shown["balance"] == {"available": CREDITS - 12, "held": 0, "charged": 12}
    release, charge, reserve, grant = shown["ledger"]
    assert [row["kind"] for row in shown["ledger"]] == ["release", "charge", "reserve", "grant"]
    assert (reserve["credits"], charge["credits"], release["credits"]) == (12, 12, 0)
    assert {(row["round"], row["requestSource"]) for row in (reserve, charge, release)} == {(1, "shop")}
    assert len({reserve["job"], charge["job"], release["job"]}) == 1
    assert (grant["credits"], grant["job"], grant["round"], grant["requestSource"]) == (CREDITS, None, None, None)


def test_what_an_open_job_may_cost_is_held(make_harness):
    house = make_harness(workers_count=0)
    house.post(BODY, headers={"Prefer": "respond-async"})
    assert house.get(USAGE).json["balance"] == {"available": CREDITS - 12, "held": 12, "charged": 0}
    house.drain()


def test_the_ledger_is_read_page_by_page_without_gap_or_repetition_also_while_it_grows(harness):
    for _ in range(3):
        harness.post(BODY)
    whole = harness.get(USAGE).json
    assert whole["nextCursor"] is None
    seen, cursor = [], ""
    while cursor is not None:
        page = harness.get(f"{USAGE}?limit=4&cursor={cursor}").json
        assert len(page["ledger"]) <= 4
        seen += rows(page)
        cursor = page["nextCursor"]
        harness.post(BODY)
    assert seen == rows(whole)


def test_the_charges_are_added_up_by_day(harness):
    for _ in range(2):
        harness.post(BODY)
    with harness.database.write() as connection:
        old = schema.ledger_table.c.id == min(row["id"] for row in harness.get(USAGE).json["ledger"] if row["kind"] == "charge")
        connection.execute(
            update(schema.ledger_table).where(old).values(created_at=schema.ledger_table.c.created_at - 2 * DAY_MS)
        )
    today, before = harness.get(USAGE).json["days"]
    assert (today["jobs"], today["credits"], before["jobs"], before["credits"]) == (1, 12, 1, 12)
    dates = [datetime.fromisoformat(day["date"]) for day in (today, before)]
    assert (dates[0] - dates[1]).days == 2
    assert abs((datetime.now(UTC).date() - dates[0].date()).days) <= 1
    assert harness.get(f"{USAGE}?days=2").json["days"] == [today]


def test_another_account_s_spending_is_not_shown(harness):
    harness.post(BODY)
    _, key = harness.new_key(5)
    shown = harness.get(USAGE, key=key).json
    assert shown["balance"] == {"available": 5, "held": 0, "charged": 0}
    assert rows(shown) == [("grant", 5, None)]
    assert shown["days"] == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_limit"),
        ("limit=501", "invalid_limit"),
        ("limit=x", "invalid_limit"),
        ("cursor=x", "invalid_cursor"),
        ("cursor=WyJhIl0", "invalid_cursor"),
        ("days=0", "invalid_days"),
        ("days=367", "invalid_days"),
        ("days=1.5", "invalid_days"),
        ("days=²", "invalid_days"),
    ],
)
def test_what_makes_no_sense_is_refused(harness, query, code):
    refused = harness.get(f"{USAGE}?{query}")
    assert (refused.status_code, refused.json["code"]) == (400, code)


def test_without_a_key_nothing_is_shown(harness):
    assert harness.client.get(USAGE).status_code == 401
