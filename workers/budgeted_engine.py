"""A wrapper that lets an engine make only those calls that the money of their job suffices for."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pipeline.metrics import MONEY_LIMITED
from pipeline.models import CallPrice
from pipeline.ports import Cause, Engine, EngineLimits, ModelUnavailable, MoneySpent
from pipeline.types import Answer, Call, ItemCode
from storage.job import money
from storage.queue.steps import Lease
from workers.wiring import WorkerParts

HELD_SECONDS = (1.0, 2.0)  #: range of the random delay until a step tries again, while calls in flight hold the money


def engine_of(parts: WorkerParts, lease: Lease, *, limited: bool, late: bool = False) -> Engine:
    """The engine for the calls of a step. `limited`: its job has `maxMoney`; `late`: as in BudgetedEngine."""
    return BudgetedEngine(parts=parts, lease=lease, late=late) if limited else parts.engine


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetedEngine:
    """Wraps the engine for one step of a job with `maxMoney`. Implements pipeline.ports.Engine."""

    parts: WorkerParts
    lease: Lease
    late: bool = False  #: the calls are of an economy job, and asked in `standard` because its deadline is near

    @property
    def name(self) -> str:
        return self.parts.engine.name

    @property
    def model(self) -> str:
        return self.parts.engine.model

    @property
    def limits(self) -> EngineLimits:
        return self.parts.engine.limits

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.parts.engine.warnings

    def ask(self, call: Call) -> Answer:
        """Holds the call's price, then asks. Fallback models that the money does not suffice for are left out.

        Raises what the engine raises, MoneySpent if the money does not suffice, and ModelUnavailable if it may suffice when other
        calls of the job have ended.
        """
        prices = self._prices(call)
        if prices:
            model, *fallbacks = self._held(prices)
            call = replace(call, model=model, fallback_models=tuple(fallbacks))
        return self.parts.engine.ask(call)

    def most_pictures(self, model: str) -> int:
        return self.parts.engine.most_pictures(model)

    def learn_pictures(self, model: str, most: int) -> None:
        self.parts.engine.learn_pictures(model, most)

    def close(self) -> None:
        """Does nothing, because the engine is closed with the parts."""

    def _held(self, prices: dict[str, CallPrice]) -> list[str]:
        try:
            with self.parts.database.write() as connection:
                return money.hold(connection, self.lease, prices)
        except MoneySpent as spent:
            MONEY_LIMITED.add()
            if self.late:
                text = f"No answer came in the tier economy before it was time to ask at the standard price. {spent}"
                raise MoneySpent(text, ItemCode.DEADLINE_EXCEEDED) from None
            raise
        except money.MoneyHeld:
            text = "The calls in flight hold what is left of maxMoney."
            raise ModelUnavailable(text, retry_after=random.uniform(*HELD_SECONDS), cause=Cause.BUSY) from None  # noqa: S311 - jitter

    def _prices(self, call: Call) -> dict[str, CallPrice]:
        """The call's price by model, in the order in which the models are asked."""
        names = dict.fromkeys((call.model or self.model, *call.fallback_models))
        characters = len(call.prompt) + (len(json.dumps(call.schema)) if call.schema else 0)
        today = datetime.now(UTC).date()
        return {
            name: self.parts.models[name].call_price(
                characters=characters, pictures=len(call.pictures), detail=call.detail, day=today, tier=call.tier
            )
            for name in names
            if name in self.parts.models
        }
