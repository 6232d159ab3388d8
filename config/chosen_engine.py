"""The engine that the settings choose."""

from __future__ import annotations

from pydantic import SecretStr

from config.engines import ENGINES, EngineKind
from config.settings import Settings
from pipeline.models import Model, known, with_limits
from pipeline.ports import Engine, EngineConfig, Lessons, Reencode


def kind_of(settings: Settings) -> EngineKind:
    """The line of the chosen engine in the table of engines."""
    return ENGINES[settings.engine]


def engine_config(settings: Settings, lessons: Lessons | None = None) -> EngineConfig:
    """The configuration of the chosen engine. `lessons`: shared with other processes; None: the engine remembers by itself."""
    kind = kind_of(settings)
    return EngineConfig(
        model=settings.model,
        api_key=_value(settings, kind.api_key),
        base_url=_value(settings, kind.base_url),
        store=settings.gemini_store,
        directory=settings.data_dir / kind.name,
        lessons=lessons,
    )


def build_engine(settings: Settings, reencode: Reencode, lessons: Lessons | None = None) -> Engine:
    """Builds the chosen engine. A process needs only one. `lessons`: as in `engine_config`."""
    return kind_of(settings).load().open_engine(engine_config(settings, lessons), reencode)


def models_of(settings: Settings) -> dict[str, Model]:
    """The models that a request may name, with their limits. The first one is the default."""
    kind = kind_of(settings)
    if kind.only_model is not None:
        only, _ = kind.only_model()
        return {only.name: only}
    first = settings.model
    allowed = settings.models or (known(first), *kind.models)
    limited = {model.name: model for model in with_limits(allowed, rpm=settings.model_rpm, tpm=settings.model_tpm)}
    return {first: limited[first], **limited}


def model_of(settings: Settings) -> tuple[str, str, tuple[str, ...]]:
    """The engine's name, model and warnings. The engine is not built, because the front door only records these facts."""
    kind = kind_of(settings)
    if kind.only_model is None:
        return kind.name, settings.model, ()
    only, warning = kind.only_model()
    return kind.name, only.name, (warning,)


def _value(settings: Settings, name: str) -> str:
    """The setting's value. Empty if the setting is not set, or if the engine has no such setting."""
    value = getattr(settings, name.lower()) if name else None
    return value.get_secret_value() if isinstance(value, SecretStr) else value or ""
