"""The engine that the settings name."""

from __future__ import annotations

from config.settings import Settings
from pipeline.models import KNOWN, Model, known, with_limits
from pipeline.ports import Engine, Reencode


def build_engine(settings: Settings, reencode: Reencode) -> Engine:
    """One engine for the process. Vendors are imported only where they are used: each weighs 50 MB and more."""
    if settings.engine == "openai":
        from pipeline.engines.openai import OpenAiEngine

        return OpenAiEngine(
            base_url=settings.openai_base_url,
            api_key=settings.openai_api_key.get_secret_value() if settings.openai_api_key else "",
            model=settings.model,
            reencode=reencode,
        )
    if settings.engine == "gemini":
        from pipeline.engines.gemini import GeminiEngine

        key = settings.gemini_api_key
        return GeminiEngine(
            api_key=key.get_secret_value() if key else "",
            model=settings.model,
            base_url=settings.gemini_base_url,
            store=settings.gemini_store,
        )
    from pipeline.engines.ocr.engine import OcrEngine

    return OcrEngine(settings.data_dir / "ocr")


def models_of(settings: Settings) -> dict[str, Model]:
    """The models that a request may name, with their limits; the first one is for who names none."""
    first = model_of(settings)[1]
    if settings.engine == "ocr":
        return {first: Model(name=first, pictures=1, low=0, medium=0, high=0, ultra=0)}
    allowed = settings.models or (known(first), *(model for model in KNOWN.values() if settings.engine == "gemini"))
    limited = {model.name: model for model in with_limits(allowed, rpm=settings.model_rpm, tpm=settings.model_tpm)}
    return {first: limited[first], **limited}


def model_of(settings: Settings) -> tuple[str, str, tuple[str, ...]]:
    """Name, model and warnings of the engine, without building it: what the front door records."""
    if settings.engine in {"gemini", "openai"}:
        return settings.engine, settings.model, ()
    from pipeline.engines.ocr.engine import MODEL, WARNING

    return "ocr", MODEL, (WARNING,)
