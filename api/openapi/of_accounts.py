"""The components of the OpenAPI document for what an account has: keys, deliveries and usage."""

from __future__ import annotations

from api.openapi.building import EVENTS, MONEY, NEXT, TIME, Schema, number, or_null, record, ref, several, text

_DELIVERY: dict[str, Schema] = {
    "id": text("The `webhook-id`, the same at each attempt."),
    "job": text("`job_…`"),
    "round": number("Of the job: each end is told.", minimum=1),
    "event": text(enum=EVENTS),
    "url": text("As sent in `webhookUrl`."),
    "status": text("`dead`: given up, can be sent again.", enum=["pending", "delivered", "dead"]),
    "attempts": several(ref("Attempt"), "The oldest first; of many just the last 50."),
    "createdAt": TIME,
    "nextAttemptAt": or_null(TIME),
}

ACCOUNTS: dict[str, Schema] = {
    "KeyList": record({"keys": several(ref("Key"))}),
    "Key": record(
        {
            "id": text("The public part of the key."),
            "name": text(),
            "prefix": text("How the key begins."),
            "createdAt": TIME,
            "lastUsedAt": or_null(text("Within an hour.", format="date-time")),
            "current": {"type": "boolean", "description": "Whether this request came with it."},
        }
    ),
    "NewKey": record({"name": text(minLength=1, maxLength=200)}),
    "MadeKey": record({"id": text(), "name": text(), "key": text("It is shown this once."), "createdAt": TIME}),
    "DeliveryList": record({"deliveries": several(ref("Delivery"))}),
    "DeliveryPage": record({"deliveries": several(ref("Delivery")), "nextCursor": NEXT}),
    "DeliveryWithBody": record(
        {**_DELIVERY, "body": or_null(text("What each attempt sends. `null`: the job was deleted, or its results have expired."))}
    ),
    "Delivery": record(_DELIVERY),
    "Attempt": record(
        {
            "at": TIME,
            "status": or_null(number("HTTP; null where there was no answer.")),
            "error": or_null(text("Why there was none.")),
            "ms": number("What it took."),
            "response": or_null(
                text("How the answer's body begins, a stranger's text. Only of the last 3 attempts, and not of private networks.")
            ),
        }
    ),
    "Usage": record(
        {
            "balance": record(
                {"available": number(), "held": number("By open jobs."), "charged": number("Ever.")}, what="Credits."
            ),
            "ledger": several(ref("LedgerRow"), "The newest first."),
            "nextCursor": NEXT,
            "days": several(ref("Day"), "The newest first, without those on which no job ended."),
        }
    ),
    "LedgerRow": record(
        {
            "id": number(),
            "kind": text(enum=["grant", "reserve", "charge", "release"]),
            "credits": number(),
            "job": or_null(text("`job_…`; it may have been deleted since.")),
            "round": or_null(number(minimum=1)),
            "requestSource": or_null(text("As sent with the job.")),
            "createdAt": TIME,
        }
    ),
    "Day": record(
        {
            "date": text("In UTC.", format="date"),
            "jobs": number("That ended."),
            "credits": number("Charged."),
            "money": MONEY,
            "moneyByTier": ref("MoneyByTier"),
        }
    ),
}
