"""The Flask app."""

from __future__ import annotations

from functools import partial

from flask import Flask, Response, g, request
from werkzeug.routing import UnicodeConverter

from api import (
    capabilities,
    corrections,
    deliveries,
    errors,
    estimate,
    examples,
    extract_image,
    health,
    job_actions,
    job_events,
    job_items,
    job_request,
    jobs,
    keys,
    metrics,
    pictures,
    request_id,
    tracing,
    usage,
)
from api.auth import add_rate_headers, optional_account
from api.console import routes as console
from api.openapi import routes
from api.openapi.examples import NO_PICTURES
from api.patience import settle_body
from api.wiring import WebParts


class Segment(UnicodeConverter):
    """One part of an address, such as a job's id. Postgres takes no NUL, so one becomes a character that no id has."""

    def to_python(self, value: str) -> str:
        return value.replace("\x00", "\ufffd")


def create_app(parts: WebParts, examples_url: str = "") -> Flask:
    """Makes the Flask app that uses these parts.

    `examples_url`: the address at which the app shall serve `examples/`, as in `http://127.0.0.1:8000/examples`; empty: it does not.
    """
    app = Flask("api", static_folder=None)
    app.url_map.converters["default"] = Segment
    app.url_map.strict_slashes = False  # an address with a slash at its end is the same; a redirect would lose a POST's body
    app.url_map.merge_slashes = False  # otherwise `//` in a path is answered with a redirect in HTML
    request_id.register(app)
    tracing.register(app)
    metrics.count_requests(app)
    errors.register(app)
    app.register_blueprint(extract_image.blueprint(parts))
    app.register_blueprint(estimate.blueprint(parts))
    app.register_blueprint(jobs.blueprint(parts))
    app.register_blueprint(job_actions.blueprint(parts))
    app.register_blueprint(job_events.blueprint(parts))
    app.register_blueprint(job_items.blueprint(parts))
    app.register_blueprint(job_request.blueprint(parts))
    app.register_blueprint(corrections.blueprint(parts))
    app.register_blueprint(pictures.blueprint(parts))
    app.register_blueprint(deliveries.blueprint(parts))
    app.register_blueprint(keys.blueprint(parts))
    app.register_blueprint(usage.blueprint(parts))
    probes = health.probes(parts)
    app.register_blueprint(health.blueprint(parts, probes))
    app.register_blueprint(capabilities.blueprint(parts, probes))
    app.register_blueprint(metrics.blueprint(parts, probes))
    app.register_blueprint(console.blueprint())
    if examples_url:
        app.register_blueprint(examples.blueprint(parts))
    app.register_blueprint(routes.blueprint(app, examples_url or NO_PICTURES))
    app.after_request(partial(add_rate_headers, parts))

    @app.before_request
    def count_strays() -> None:
        """Counts a request to an unknown address against the key's rate, so that its answer has the rate headers too."""
        if request.routing_exception is not None:
            optional_account(parts)

    @app.after_request
    def note_use(response: Response) -> Response:
        """Notes after the work of the request that its key was used, because the request must not depend on it."""
        if key := g.get("key"):
            parts.key_uses.note(parts.database, key)
        return response

    @app.after_request
    def settle(response: Response) -> Response:
        settle_body(request.environ)
        return response

    return app
