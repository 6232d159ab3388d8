"""The engine that the settings name."""

from __future__ import annotations

from pipeline.ports import Engine
from pipeline.settings import Settings


def build_engine(settings: Settings) -> Engine:
    """One engine for the process. Vendors are imported only where they are used: each weighs 50 MB and more."""
    if settings.engine == "gemini":
        from pipeline.engines.gemini import GeminiEngine

        key = settings.gemini_api_key
        return GeminiEngine(
            api_key=key.get_secret_value() if key else "", model=settings.model, base_url=settings.gemini_base_url
        )
    from pipeline.engines.ocr import OcrEngine

    return OcrEngine(settings.data_dir / "ocr")


def model_of(settings: Settings) -> tuple[str, str, tuple[str, ...]]:
    """Name, model and warnings of the engine, without building it: what the front door records."""
    if settings.engine == "gemini":
        return "gemini", settings.model, ()
    from pipeline.engines.ocr import MODEL, WARNING

    return "ocr", MODEL, (WARNING,)
