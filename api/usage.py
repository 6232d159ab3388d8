"""The credits of the caller's account, and what they were spent on."""

from __future__ import annotations

from flask import Blueprint, Response

from api.auth import authenticate
from api.errors import ApiError, json_response
from api.openapi.building import number, text
from api.openapi.document import Parameter, ResponseSpec, describe
from api.paging import asked, asked_limit, asked_place, cursor_of, whole_between
from api.wiring import WebParts
from pipeline.job_object import money_by_tier, time_json
from storage.account.usage import Balance, Day, Movement, balance_of, days_of, movements_of

DEFAULT_LIMIT, MOST = 50, 500
DEFAULT_DAYS, MOST_DAYS = 31, 366


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("usage", __name__)

    @routes.get("/api/v1/usage")
    @describe(
        "Credits: what there is, and what it was spent on",
        tag="Account",
        parameters=[
            Parameter(
                name="limit",
                schema=number(minimum=1, maximum=MOST),
                what=f"How many rows of the ledger to show at once, by default {DEFAULT_LIMIT}.",
            ),
            Parameter(name="cursor", schema=text(), what="The `nextCursor` of the page before."),
            Parameter(
                name="days",
                schema=number(minimum=1, maximum=MOST_DAYS),
                what=f"How many days back `days` goes, by default {DEFAULT_DAYS}.",
            ),
        ],
        answers=[ResponseSpec(status=200, what="The usage of the key's account.", schema="Usage")],
        errors=["invalid_limit", "invalid_cursor", "invalid_days"],
    )
    def show() -> Response:
        """Answers with the balance, the ledger from its newest row on, and the charges and the money by day."""
        account = authenticate(parts)
        limit, place, count = asked_limit(DEFAULT_LIMIT, MOST), asked_place(int), _asked_days()
        with parts.database.read() as connection:
            balance = balance_of(connection, account)
            # Read one row more than asked for, to see whether there is another page.
            rows = movements_of(connection, account, before=place[0] if place else None, limit=limit + 1)
            days = days_of(connection, account, count=count)
        page = rows[:limit]
        return json_response(
            {
                "balance": _balance(balance),
                "ledger": [_movement(row) for row in page],
                "nextCursor": cursor_of(page[-1].id) if len(rows) > limit else None,
                "days": [_day(day) for day in days],
            }
        )

    return routes


def _asked_days() -> int:
    given = asked("days")
    if given == "":
        return DEFAULT_DAYS
    days = whole_between(given, 1, MOST_DAYS)
    if days is None:
        raise ApiError(400, "invalid_days", f"days must be a whole number from 1 to {MOST_DAYS}.")
    return days


def _balance(balance: Balance) -> dict[str, int]:
    return {"available": balance.available, "held": balance.held, "charged": balance.charged}


def _movement(row: Movement) -> dict[str, object]:
    return {
        "id": row.id,
        "kind": row.kind,
        "credits": row.amount,
        "job": row.job,
        "round": row.round,
        "requestSource": row.request_source,
        "createdAt": time_json(row.created_at),
    }


def _day(day: Day) -> dict[str, object]:
    money = round(day.nanodollars / 1e9, 6)
    by_tier = money_by_tier(day.nanodollars, economy=day.economy_nanodollars)
    return {"date": day.date.isoformat(), "jobs": day.jobs, "credits": day.credits, "money": money, "moneyByTier": by_tier}
