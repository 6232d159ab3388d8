"""The web process: gunicorn with threads. Each waiting request holds one thread, and so do each body while it arrives and each preview."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from flask import Flask
from gunicorn.app.base import BaseApplication

from api.app import create_app
from api.connections import Worker, most_connections
from api.wiring import Room, build_parts, room_of
from config.settings import Settings
from pipeline.tracing import spans
from pipeline.tracing.start import FLUSH_SECONDS, start
from storage.redis.counts import Publisher

SPARE_THREADS = 32  #: threads for requests that are answered at once, beside those that wait, send a body or show a picture
SPARE_CONNECTIONS = 32  #: connections that requests in work never take
LEAST_CONNECTIONS = 2 * SPARE_CONNECTIONS

log = structlog.get_logger(__name__)


class TooFewFiles(Exception):
    """The process may open too few files to serve. The message says how to let it open more."""


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(
        self, settings: Settings, room: Room, options: dict[str, Any], pictures: str, on_start: Callable[[], object]
    ) -> None:
        self._pictures = pictures
        self._on_start = on_start
        self._settings = settings
        self._room = room
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
        start("web", os.environ)
        parts = build_parts(self._settings, self._room, lambda: self._worker is not None and not self._worker.alive)
        self._publisher = Publisher(parts.signals, "web")
        return create_app(parts, self._pictures)

    def _keep_worker(self, worker: Any) -> None:
        self._worker = worker
        if worker.age == 1:
            self._on_start()

    def _publish_counts(self, _arbiter: Any, _worker: Any) -> None:
        if self._publisher:
            self._publisher.close()
        spans.close(FLUSH_SECONDS)


def listen_address(host: str, port: int) -> str:
    """The address in gunicorn's spelling, where an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def threads_of(room: Room) -> int:
    """The threads of a web process. Every request that may hold its thread for long has a place, so SPARE_THREADS always remain."""
    return room.total + SPARE_THREADS


def room_and_connections(settings: Settings) -> tuple[Room, int]:
    """How many requests a web process may hold, and how many connections.

    If the process may open few files, it holds fewer requests than the settings say, and says so. Requests in work are never cut off.
    So if they could take all connections, the customer who waits for jobs would shut the door to everybody.

    Raises TooFewFiles.
    """
    wanted = room_of(settings)
    connections = most_connections(threads_of(wanted))
    if connections < LEAST_CONNECTIONS:
        raise TooFewFiles(
            f"A web process needs room for {LEAST_CONNECTIONS} connections, and the limit of open files leaves {connections}: "
            "raise it, for example with `ulimit -n 4096`."
        )
    room = wanted.within(connections - SPARE_CONNECTIONS)
    if room != wanted:
        todo = "Raise the limit of open files (`ulimit -n`), or lower MAX_WAITERS."
        log.warning("few_open_files", connections=connections, waiting=room.waiting, max_waiters=wanted.waiting, todo=todo)
    return room, connections


def run_web(settings: Settings, *, bind: str = "", pictures: str = "", on_start: Callable[[], object] | None = None) -> None:
    """Serves until SIGTERM or SIGINT. `bind` is an address in gunicorn's spelling; if empty, HOST and PORT are used.
    `pictures` is as in `create_app`. `on_start` is called once, in the first process that serves, because threads that it starts would
    not go on after a fork.

    Raises TooFewFiles. gunicorn itself reads the number of processes from WEB_CONCURRENCY.
    """
    room, connections = room_and_connections(settings)
    _Server(
        settings,
        room,
        {
            "bind": bind or listen_address(settings.host, settings.port),
            "worker_class": Worker,
            "threads": threads_of(room),
            "worker_connections": connections,
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
        on_start or _nothing,
    ).run()


def _nothing() -> None:
    """What is done at the start if nothing else was asked for."""
