"""How a model server treats calls in its cheap tier (Google and OpenAI call it flex). Seeded, so that a run can be repeated.

Times are those of the real server, in seconds. A fake that serves real connections multiplies them with `factor`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True, kw_only=True, slots=True)
class FlexOutcome:
    """What happens to one call."""

    seconds: float  #: from the call to its answer
    shed: int = 0  #: the HTTP status with which the call is refused; 0: it is answered
    served_as_standard: bool = False  #: it is answered, but as a standard call, which costs more


class FlexServer:
    """Draws the outcome of each call. Thread-safe. Its attributes may be changed while it is used."""

    def __init__(
        self,
        *,
        seed: int = 0,
        seconds: tuple[float, float] = (60.0, 900.0),
        shed: float = 0.0,
        standard: float = 0.0,
        has_capacity: Callable[[float], bool] = lambda _at: True,
        factor: float = 1.0,
    ) -> None:
        self.seconds = seconds  #: the shortest and the longest time to an answer
        self.shed = shed  #: the fraction of calls that are shed while there is capacity
        self.standard = standard  #: the fraction of answered calls that are served as standard
        self.has_capacity = has_capacity  #: whether there is capacity at a time; without, every call is shed
        self.factor = factor  #: real seconds for a second of the server
        self._random = random.Random(seed)
        self._lock = Lock()

    def treat(self, *, at: float) -> FlexOutcome:
        """The outcome of a call that comes at this time, in seconds of the server."""
        with self._lock:
            chance, how, length, status = (self._random.random() for _ in range(4))
        if chance < self.shed or not self.has_capacity(at):
            return FlexOutcome(seconds=0.5 if self.seconds[1] else 0.0, shed=429 if status < 0.5 else 503)
        least, most = self.seconds
        return FlexOutcome(seconds=least + length * (most - least), served_as_standard=how < self.standard)
