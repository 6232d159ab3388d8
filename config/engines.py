"""The table of engines. A further engine is a module in `pipeline/engines` and a line in this table.

Everything else asks the table: nothing compares the name of an engine. The module of an engine is imported only where it is used,
because its vendor's package weighs 50 MB and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pipeline.models import KNOWN, Model

if TYPE_CHECKING:  # every command reads the settings, and none but a few needs more of an engine than this table
    from pipeline.ports import EngineModule

EngineName = Literal["gemini", "openai", "ocr"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineKind:
    """What the service has to know of an engine before it is built."""

    name: EngineName  #: as ENGINE says it
    load: Callable[[], EngineModule]  #: imports its module
    api_key: str = ""  #: the setting that holds its API key; empty: it has none
    base_url: str = ""  #: the setting that holds its server's address; empty: it has none
    needs: Mapping[str, str] = field(default_factory=dict)  #: setting that must be set → the rest of the sentence that says so
    chosen_by: str = ""  #: the setting that chooses this engine where ENGINE is empty
    models: tuple[Model, ...] = ()  #: what a request may name beside MODEL, where MODELS is empty
    only_model: Callable[[], tuple[Model, str]] | None = None  #: its one model, and a warning for each job; None: MODEL counts
    governed: bool = True  #: its calls have limits that all workers share, retries and fallback models
    follows_prompts: bool = True


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

    return Model(name=MODEL, pictures=1, low=0, medium=0, high=0), WARNING


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
            api_key="OPENAI_API_KEY",
            base_url="OPENAI_BASE_URL",
            needs={
                "OPENAI_BASE_URL": ", such as http://127.0.0.1:11434/v1",
                "MODEL": ", by the name that its server has for it",
            },
        ),
        EngineKind(name="ocr", load=_ocr, only_model=_ocr_model, governed=False, follows_prompts=False),
    )
}

#: Works with nothing set: where ENGINE is empty, and no setting chooses another one.
EMBEDDED_ENGINE = ENGINES["ocr"]
CHOSEN_BY = {kind.chosen_by: kind for kind in ENGINES.values() if kind.chosen_by}


def why_needed(engine: str, setting: str) -> str:
    """Why `setting` must be set for `engine`; empty if it need not."""
    kind = ENGINES.get(engine)
    return f"ENGINE={engine} needs {setting}{kind.needs[setting]}" if kind and setting in kind.needs else ""
