"""Shows the deliveries of webhooks, and sends one again."""

from __future__ import annotations

import structlog
from flask import Blueprint, Response

from api.auth import authenticate
from api.errors import ApiError, json_response
from api.openapi.document import ResponseSpec, describe
from api.paging import asked_limit, asked_place, asked_status, cursor_of, list_parameters, own_job
from api.wiring import WebParts
from pipeline.job_object import time_json
from storage.job import redelivery
from storage.job.redelivery import DeliveryView, deliveries_of, deliveries_page, delivery_of_account
from storage.queue import ringing

log = structlog.get_logger(__name__)

DEFAULT_LIMIT, MOST_DELIVERIES = 20, 100
STATES = ["pending", "delivered", "dead"]


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("deliveries", __name__)

    @routes.get("/api/v1/jobs/<job>/deliveries")
    @describe(
        "What became of a job's webhooks",
        tag="Deliveries",
        answers=[
            ResponseSpec(
                status=200,
                what="One for each end of the job, the newest first.",
                schema="DeliveryList",
                names={"delivery": "/deliveries/0/id"},
            )
        ],
        errors=["not_found"],
    )
    def show(job: str) -> Response:
        """Answers with the job's deliveries, each with all of its attempts."""
        own_job(parts, job, authenticate(parts))
        with parts.database.read() as connection:
            found = deliveries_of(connection, job)
        return json_response({"deliveries": [_delivery(view) for view in found]})

    @routes.get("/api/v1/deliveries")
    @describe(
        "The account's webhooks",
        tag="Deliveries",
        parameters=list_parameters(STATES, DEFAULT_LIMIT, MOST_DELIVERIES),
        answers=[ResponseSpec(status=200, what="The newest first.", schema="DeliveryPage")],
        errors=["invalid_status", "invalid_limit", "invalid_cursor"],
    )
    def index() -> Response:
        """Answers with the deliveries of all jobs of the account."""
        account = authenticate(parts)
        state, limit, place = asked_status(STATES), asked_limit(DEFAULT_LIMIT, MOST_DELIVERIES), asked_place(int, str)
        after = (place[0], place[1]) if place else None
        with parts.database.read() as connection:
            found = deliveries_page(connection, account, limit=limit + 1, state=state, after=after)
        shown = found[:limit]
        following = cursor_of(shown[-1].created_at, shown[-1].id) if len(found) > limit else None
        return json_response({"deliveries": [_delivery(view) for view in shown], "nextCursor": following})

    @routes.get("/api/v1/deliveries/<delivery>")
    @describe(
        "A webhook: what was sent and what came back",
        tag="Deliveries",
        answers=[ResponseSpec(status=200, what="The delivery with its body.", schema="DeliveryWithBody")],
        errors=["not_found"],
    )
    def one(delivery: str) -> Response:
        """Answers with the delivery, and with the body that each attempt sends."""
        account = authenticate(parts)
        with parts.database.read() as connection:
            found = delivery_of_account(connection, delivery, account)
        if found is None:
            raise ApiError(404, "not_found", "There is no such delivery.")
        view, body = found
        return json_response({**_delivery(view), "body": body})

    @routes.post("/api/v1/deliveries/<delivery>/redeliver")
    @describe(
        "Send a webhook again",
        tag="Deliveries",
        details="The same `webhook-id` and the same bytes, signed anew. One that waits for its next attempt does not wait longer.",
        answers=[ResponseSpec(status=202, what="It is sent soon.", schema="Delivery")],
        errors=["not_found", "delivery_gone"],
    )
    def redeliver(delivery: str) -> Response:
        """Starts a new round of attempts. A delivery that waits for its next attempt is tried now."""
        account = authenticate(parts)
        try:
            with parts.database.write() as connection:
                job = redelivery.redeliver(connection, delivery, account)
                rings = ringing.to_ring(connection, beside=job)
                view = next(view for view in deliveries_of(connection, job) if view.id == delivery)
        except redelivery.NoDelivery:
            raise ApiError(404, "not_found", "There is no such delivery.") from None
        except redelivery.BodyGone:
            text = "What this webhook said is gone: its job was deleted, or its results have expired."
            raise ApiError(410, "delivery_gone", text) from None
        parts.signals.ring(rings)
        log.info("webhook_redelivered", job=job)
        return json_response(_delivery(view), 202)

    return routes


def _delivery(view: DeliveryView) -> dict[str, object]:
    return {
        "id": view.id,
        "job": view.job,
        "round": view.round,
        "event": view.event,
        "url": view.url,
        "status": view.state,
        "attempts": [
            {
                "at": time_json(made["at"]),
                "status": made["status"],
                "error": made["error"] or None,
                "ms": made["ms"],
                "response": made.get("text") or None,
            }
            for made in view.attempts
        ],
        "createdAt": time_json(view.created_at),
        "nextAttemptAt": time_json(view.next_at),
    }
