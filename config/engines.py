"""The table of engines. To add an engine, write a module in `pipeline/engines` and add a line to this table.

All other code asks this table and never compares the name of an engine. An engine's module is imported only where it is used,
because its vendor's package takes 50 MB and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pipeline.models import KNOWN, Model
from pipeline.types import Detail, Question, Thinking

if TYPE_CHECKING:  # every command reads the settings, but only a few commands need more of an engine than this table
    from pathlib import Path

    from pipeline.ports import EngineModule, TextReader

EngineName = Literal["gemini", "openai", "ocr"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineKind:
    """What the service must know about an engine before the engine is built."""

    name: EngineName  #: the value of ENGINE that chooses it
    load: Callable[[], EngineModule]  #: imports the engine's module
    api_key: str = ""  #: the setting that holds its API key; empty: it needs no key
    base_url: str = ""  #: the setting that holds its server's address; empty: it has no server
    needs: Mapping[str, str] = field(default_factory=dict)  #: setting that must be set → the end of the error message
    chosen_by: str = ""  #: if ENGINE is empty and this setting is set, this engine is used
    models: tuple[Model, ...] = ()  #: if MODELS is empty, a request may name these models or MODEL
    only_model: Callable[[], tuple[Model, str]] | None = None  #: its only model, and a warning for each job; None: MODEL is used
    governed: bool = True  #: whether its calls have retries, fallback models and limits that all workers share
    follows_prompts: bool = True
    fills_schemas: bool = True  #: whether it fills the `schema` of a request
    details: tuple[Detail, ...] = tuple(Detail)  #: the values of `detail` that differ for it
    thinking: tuple[Thinking, ...] = tuple(Thinking)  #: the values of `thinking` that have an effect
    cannot: Callable[[Question, int], str] = lambda _question, _images: (
        ""
    )  #: why it can't answer about so many images; empty: it can
    ignores: Callable[[Question], tuple[str, ...]] = lambda _question: ()  #: warnings about fields that have no effect


def _ocr_cannot(question: Question, images: int) -> str:
    from pipeline.engines.abilities import ocr_cannot

    return ocr_cannot(question, images)


def _ocr_ignores(question: Question) -> tuple[str, ...]:
    from pipeline.engines.abilities import ocr_ignores

    return ocr_ignores(question)


def _openai_ignores(question: Question) -> tuple[str, ...]:
    from pipeline.engines.abilities import openai_ignores

    return openai_ignores(question)


def _gemini() -> EngineModule:
    from pipeline.engines import gemini

    return gemini


def _openai() -> EngineModule:
    from pipeline.engines import openai

    return openai


def _ocr() -> EngineModule:
    from pipeline.engines.ocr import engine

    return engine


def _ocr_model() -> tuple[Model, str]:
    from pipeline.engines.ocr.engine import MODEL, WARNING

    return Model(name=MODEL, pictures=1, low=0, medium=0, high=0, ultra=0), WARNING


ENGINES: Mapping[str, EngineKind] = {
    kind.name: kind
    for kind in (
        EngineKind(
            name="gemini",
            load=_gemini,
            api_key="GEMINI_API_KEY",
            base_url="GEMINI_BASE_URL",
            needs={"GEMINI_API_KEY": " (or GEMINI_API_KEY_FILE)"},
            chosen_by="GEMINI_API_KEY",
            models=tuple(KNOWN.values()),
        ),
        EngineKind(
            name="openai",
            load=_openai,
            details=(Detail.LOW, Detail.MEDIUM, Detail.HIGH),
            thinking=(),
            ignores=_openai_ignores,
            api_key="OPENAI_API_KEY",
            base_url="OPENAI_BASE_URL",
            needs={
                "OPENAI_BASE_URL": ", such as http://127.0.0.1:11434/v1",
                "MODEL": ", by the name that its server has for it",
            },
        ),
        EngineKind(
            name="ocr",
            load=_ocr,
            only_model=_ocr_model,
            governed=False,
            follows_prompts=False,
            fills_schemas=False,
            details=(Detail.HIGH,),
            thinking=(),
            cannot=_ocr_cannot,
            ignores=_ocr_ignores,
        ),
    )
}

#: The default engine, used if ENGINE is empty and no setting chooses another one. It works without any setting.
EMBEDDED_ENGINE = ENGINES["ocr"]
CHOSEN_BY = {kind.chosen_by: kind for kind in ENGINES.values() if kind.chosen_by}


def why_needed(engine: str, setting: str) -> str:
    """Why `setting` must be set for `engine`. Empty if it need not be set."""
    kind = ENGINES.get(engine)
    return f"ENGINE={engine} needs {setting}{kind.needs[setting]}" if kind and setting in kind.needs else ""


def text_reader(data_dir: Path) -> TextReader:
    """What reads pictures to compare records with them, whichever engine is chosen. It shares the server of the engine `ocr`."""
    from pipeline.engines.ocr.text_reader import OcrTextReader

    return OcrTextReader(data_dir / EMBEDDED_ENGINE.name)
