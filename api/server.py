"""The web process: gunicorn with threads. Each waiting request holds one thread, and so does each body while it arrives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from api.app import create_app
from api.connections import Worker, most_connections
from api.wiring import arriving_places, build_parts
from config.settings import Settings
from storage.redis.counts import Publisher

SPARE_THREADS = 32  #: threads for requests that are answered at once, in addition to those that wait or send a body


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, options: dict[str, Any], pictures: str) -> None:
        self._pictures = pictures
        self._settings = settings
        self._options = options
        self._worker: Any = None
        self._publisher: Publisher | None = None
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)
        self.cfg.set("post_worker_init", self._keep_worker)
        self.cfg.set("worker_exit", self._publish_counts)

    def load(self) -> Flask:
        """Builds the app in each worker after the fork, so that processes share no connection."""
        parts = build_parts(self._settings, stopping=lambda: self._worker is not None and not self._worker.alive)
        self._publisher = Publisher(parts.signals, "web")
        return create_app(parts, self._pictures)

    def _keep_worker(self, worker: Any) -> None:
        self._worker = worker

    def _publish_counts(self, _arbiter: Any, _worker: Any) -> None:
        if self._publisher:
            self._publisher.close()


def listen_address(host: str, port: int) -> str:
    """The address in gunicorn's spelling, where an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def run_web(settings: Settings, *, bind: str = "", pictures: str = "") -> None:
    """Serves until SIGTERM or SIGINT. `bind` is an address in gunicorn's spelling; if empty, HOST and PORT are used.
    `pictures` is as in `create_app`.

    gunicorn itself reads the number of processes from WEB_CONCURRENCY.
    """
    threads = settings.max_waiters + arriving_places(settings) + SPARE_THREADS
    _Server(
        settings,
        {
            "bind": bind or listen_address(settings.host, settings.port),
            "worker_class": Worker,
            "threads": threads,
            "worker_connections": most_connections(threads),
            "timeout": 120,
            "graceful_timeout": 25,
            "keepalive": 75,
            "sendfile": False,  # it would wait in the thread for a client that does not read
            "loglevel": "warning",
            # The folder of the heartbeat file. It is in memory if possible, because the file is touched each second.
            "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108 - gunicorn makes the name
            "control_socket_disable": True,
        },
        pictures,
    ).run()
