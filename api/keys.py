"""The API keys of the caller's own account."""

from __future__ import annotations

import structlog
from flask import Blueprint, Response, g

from api.auth import authenticate
from api.errors import ApiError, json_response
from api.json_body import read_object
from api.openapi.document import ResponseSpec, describe
from api.openapi.error_codes import OF_BODIES
from api.wiring import WebParts
from pipeline.job_object import time_json
from pipeline.request.fields import LONGEST_NAME
from storage.account import keys

log = structlog.get_logger(__name__)


def blueprint(parts: WebParts) -> Blueprint:
    routes = Blueprint("keys", __name__)

    @routes.get("/api/v1/keys")
    @describe(
        "The keys of the account",
        tag="Account",
        answers=[ResponseSpec(status=200, what="Those that are not revoked, the oldest first.", schema="KeyList")],
    )
    def index() -> Response:
        """Answers with the account's keys. The keys themselves can't be shown, because only their hashes are stored."""
        account = authenticate(parts)
        with parts.database.read() as connection:
            found = keys.keys_of(connection, account)
        shown = [
            {
                "id": key.id,
                "name": key.name,
                "prefix": f"xim_{key.id}",
                "createdAt": time_json(key.created_at),
                "lastUsedAt": time_json(key.last_used_at),
                "current": key.id == g.key,
            }
            for key in found
        ]
        return json_response({"keys": shown})

    @routes.post("/api/v1/keys")
    @describe(
        "Make a key",
        tag="Account",
        bodies={"application/json": "NewKey"},
        answers=[ResponseSpec(status=201, what="The key, which can't be shown again.", schema="MadeKey")],
        errors=[
            "invalid_json",
            "invalid_name",
            "too_many_keys",
            *OF_BODIES,
        ],
    )
    def create() -> Response:
        """Makes another key of the same account."""
        account = authenticate(parts)
        name = read_object(parts, account).get("name")
        if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME:
            raise ApiError(400, "invalid_name", f"name must be a text of 1 to {LONGEST_NAME} characters.")
        try:
            with parts.database.write() as connection:
                key, made = keys.add_key(connection, account=account, name=name.strip(), secret_key=parts.secret_key)
        except keys.TooManyKeys:
            text = f"The account has {keys.MOST_KEYS} keys; revoke one first."
            raise ApiError(409, "too_many_keys", text) from None
        log.info("key_made", key=made.id)
        shown = {"id": made.id, "name": made.name, "key": key, "createdAt": time_json(made.created_at)}
        return json_response(shown, 201, {"Cache-Control": "no-store"})

    @routes.delete("/api/v1/keys/<key>")
    @describe(
        "Revoke a key",
        tag="Account",
        answers=[ResponseSpec(status=204, what="The key is no longer taken.")],
        errors=["not_found", "key_in_use"],
    )
    def revoke(key: str) -> Response:
        """Revokes another key of the account. A key can't revoke itself, so an account always keeps one."""
        account = authenticate(parts)
        if key == g.key:
            raise ApiError(409, "key_in_use", "This request came with this key. Revoke it with another key of the account.")
        with parts.database.write() as connection:
            if not keys.revoke_own(connection, account=account, key=key):
                raise ApiError(404, "not_found", "The account has no such key.")
        log.info("key_revoked", key=key)
        return Response(status=204)

    return routes
