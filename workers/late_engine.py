"""Imports and builds the engine when a step needs it, because a vendor's package takes much memory that an idle worker can do without."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from pipeline.ports import Engine, EngineLimits
from pipeline.types import Answer, Call

log = structlog.get_logger(__name__)


class LateEngine:
    """An engine that `build` makes when it is first needed. Implements pipeline.ports.Engine. Thread-safe.

    `name`, `model` and `warnings` are known before. If `build` raises, the step that needed the engine fails, and the next one
    tries again.
    """

    def __init__(self, build: Callable[[], Engine], *, name: str, model: str, warnings: tuple[str, ...]) -> None:
        self._build = build
        self.name = name
        self.model = model
        self.warnings = warnings
        self._lock = threading.Lock()  # one thread imports, and the others wait for it
        self._engine: Engine | None = None
        self._loading = False

    def load_soon(self) -> None:
        """Starts to build the engine in another thread, unless that was done. The step that will need it works on meanwhile."""
        if self._loading:
            return
        self._loading = True
        threading.Thread(target=self._load, name="load-engine", daemon=True).start()

    def _load(self) -> None:
        try:
            self._built()
        except Exception:
            log.exception("engine_not_loaded")  # the step that needs it raises the same

    def _built(self) -> Engine:
        if self._engine is None:
            with self._lock:
                if self._engine is None:
                    self._engine = self._build()
        return self._engine

    @property
    def limits(self) -> EngineLimits:
        return self._built().limits

    def ask(self, call: Call) -> Answer:
        return self._built().ask(call)

    def most_pictures(self, model: str) -> int:
        return self._built().most_pictures(model)

    def learn_pictures(self, model: str, most: int) -> None:
        self._built().learn_pictures(model, most)

    def close(self) -> None:
        """Closes the engine if it was built."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
