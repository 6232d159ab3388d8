"""/healthz says whether this process serves, /readyz whether its dependencies work, and /api/v1/key whether a key is valid."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address

import structlog
from flask import Blueprint, Response, request
from sqlalchemy import select

from api.auth import owner_of_key, unauthorized
from api.errors import json_response
from api.openapi.document import ResponseSpec, describe
from api.wiring import WebParts
from pipeline.errors import PartError
from storage.database import schema_serves

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 3.0  #: the time limit of all checks together
#: How the names of headers begin that proxies add. A request with one of them comes from elsewhere.
FORWARDING = (
    "forwarded",
    "x-forwarded",
    "x-real-ip",
    "x-original",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-",
    "true-client-ip",
    "client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "via",
)
FRESH_SECONDS = 1.0  #: an answer is reused for this long, so that frequent requests cost nothing


class SchemaIsOld(Exception):
    """The database answers but has not been migrated."""


class ModelAway(Exception):
    """The model can't be asked until somebody fixes something, such as the key. Until then, jobs wait."""


class Probe:
    """Checks one dependency. Only one thread at a time checks it, even if many requests ask or the check hangs."""

    def __init__(self, name: str, check: Callable[[], None]) -> None:
        self._name = name
        self._check = check
        self._changed = threading.Condition()
        self._looking = False
        self._at = float("-inf")
        self._fault: str | None = None

    def fault(self, until: float) -> str | None:
        """What is wrong, or None. Waits for the answer at most until `until`, by `time.monotonic`."""
        with self._changed:
            asked = time.monotonic()
            if asked - self._at > FRESH_SECONDS:
                if not self._looking:
                    self._looking = True
                    threading.Thread(target=self._look, name=f"readyz-{self._name}", daemon=True).start()
                if not self._changed.wait_for(lambda: self._at >= asked, max(until - time.monotonic(), 0)):
                    return "no answer in time"
            return self._fault

    def _look(self) -> None:
        fault = None
        try:
            self._check()
        except Exception as error:  # noqa: BLE001 - any error means that the dependency can't be used
            fault = f"{type(error).__name__}: {error}"
            log.warning("not_ready", check=self._name, reason=type(error).__name__)
        with self._changed:
            self._looking, self._at, self._fault = False, time.monotonic(), fault
            self._changed.notify_all()


def probes(parts: WebParts) -> dict[str, Probe]:
    """The name that /readyz uses → the probe of that dependency."""
    migrated = threading.Event()

    def database() -> None:
        with parts.database.read() as connection:
            connection.execute(select(1))
        if not migrated.is_set():  # a migrated schema stays migrated
            if not schema_serves(parts.database):
                raise SchemaIsOld
            migrated.set()

    def redis() -> None:
        parts.signals.check()

    def scratch() -> None:
        next(iter(parts.scratch.list("readyz/")), None)

    def model() -> None:
        """Reports what the workers found. A call to the model from here would use up quota."""
        with suppress(PartError):  # the check `redis` reports it
            notices = parts.notices()
            # Only the default model counts. Another model concerns only the jobs that name it.
            if any(name in notices for name in ("", next(iter(parts.models)))):
                raise ModelAway(" ".join(notices.values()))

    checks: dict[str, Callable[[], None]] = {"database": database, "redis": redis, "scratch": scratch, "model": model}
    return {name: Probe(name, check) for name, check in checks.items()}


def faults_of(looked_at: Mapping[str, Probe]) -> dict[str, str | None]:
    """Name of each dependency → what is wrong, or None. It takes at most PATIENCE_SECONDS."""
    until = time.monotonic() + PATIENCE_SECONDS
    return {name: probe.fault(until) for name, probe in looked_at.items()}


def blueprint(parts: WebParts, looked_at: Mapping[str, Probe]) -> Blueprint:
    """`looked_at`: as from `probes`."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    @describe(
        "Whether this process serves",
        tag="Health",
        key="none",
        answers=[ResponseSpec(status=200, what="It does.", schema="Health")],
    )
    def healthz() -> Response:
        """Answers without checking any dependency, because a dependency that is away is no reason to restart this process."""
        return json_response({"status": "ok"})

    @routes.get("/api/v1/key")
    @describe(
        "Whether the key is valid",
        tag="Account",
        answers=[ResponseSpec(status=204, what="It is.")],
    )
    def key() -> Response:
        """Answers 204 if the key is valid, else 401. It counts against no rate: a proxy asks it before it reads a body."""
        owner, _ = owner_of_key(parts)
        if owner is None:
            raise unauthorized()
        return Response(status=204)

    @routes.get("/readyz")
    @describe(
        "Whether what it works with is there",
        tag="Health",
        key="none",
        answers=[
            ResponseSpec(status=200, what="Everything is.", schema="Readiness"),
            ResponseSpec(status=503, what="Something is away.", schema="Readiness"),
        ],
    )
    def readyz() -> Response:
        """Answers 200 if every dependency works, else 503 with the names of those that are away."""
        faults = faults_of(looked_at)
        ready = not any(faults.values())
        body: dict[str, object] = {
            "status": "ready" if ready else "not ready",
            "checks": {name: "away" if fault else "ok" for name, fault in faults.items()},
        }
        if not ready and may_see_details(parts):
            body["details"] = {name: fault for name, fault in faults.items() if fault}
        return json_response(body, 200 if ready else 503)

    return routes


def may_see_details(parts: WebParts) -> bool:
    """Whether the caller runs the service. Others may not see the details, because they name hosts."""
    if has_token(parts):
        return True
    forwarded = any(name.lower().startswith(FORWARDING) for name, _ in request.headers)
    return _is_loopback(request.remote_addr or "") and not forwarded and _names_this_machine(request.headers.get("Host", ""))


def has_token(parts: WebParts) -> bool | None:
    """Whether the caller sent METRICS_TOKEN, compared in constant time. None: it sent nothing, or the setting is not set."""
    token, given = parts.settings.metrics_token, request.headers.get("Authorization")
    if token is None or given is None:
        return None
    return hmac.compare_digest(given.removeprefix("Bearer ").encode(), token.get_secret_value().encode())


def _names_this_machine(host: str) -> bool:
    """Whether a Host header names this machine. A proxy on it, or a page that a browser on it shows, sends the name of a site."""
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
