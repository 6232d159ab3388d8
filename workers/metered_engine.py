"""A wrapper that counts the calls of an engine."""

from __future__ import annotations

import time

from pipeline.metrics import MODEL_CALLS, MODEL_SECONDS, MODEL_TOKENS
from pipeline.ports import Cause, Engine, EngineLimits, ModelFault, ModelRefused, ModelUnavailable
from pipeline.tracing.spans import span
from pipeline.types import Answer, Call


class MeteredEngine:
    """Wraps an engine and counts the outcome of each call. Implements pipeline.ports.Engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def model(self) -> str:
        return self._engine.model

    @property
    def limits(self) -> EngineLimits:
        return self._engine.limits

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._engine.warnings

    def ask(self, call: Call) -> Answer:
        """Asks the wrapped engine. An error that it raises is counted and raised again."""
        began = time.monotonic()
        outcome = "error"
        facts = {"engine": self.name, "model": call.model or self.model, "tier": call.tier.value}
        try:
            with span("model.call", "client", images=len(call.pictures), **facts) as calling:
                answer = self._engine.ask(call)
                outcome = answer.finish.value
                tokens = {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}
                calling.set(finish=outcome, tier=answer.tier.value, **tokens)
        except ModelUnavailable as error:
            outcome = "unavailable"
            if error.cause is Cause.SHED:
                outcome = "shed"
            raise
        except ModelFault:
            outcome = "fault"
            raise
        except ModelRefused:
            outcome = "refused"
            raise
        finally:
            MODEL_CALLS.add(engine=self.name, outcome=outcome)
            MODEL_SECONDS.observe(time.monotonic() - began, engine=self.name)
        MODEL_TOKENS.add(answer.input_tokens, engine=self.name, direction="input")
        MODEL_TOKENS.add(answer.output_tokens, engine=self.name, direction="output")
        return answer

    def most_pictures(self, model: str) -> int:
        return self._engine.most_pictures(model)

    def learn_pictures(self, model: str, most: int) -> None:
        self._engine.learn_pictures(model, most)

    def close(self) -> None:
        self._engine.close()
