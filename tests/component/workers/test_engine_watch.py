"""A worker says at start whether its engine can be used, and notices when it can be used again."""

from __future__ import annotations

from dataclasses import replace

from structlog.testing import capture_logs

from config.engine_check import EngineChecked, check_engine, check_engine_apart
from config.settings import load_settings
from pipeline.engines.limiter import LocalLimiter
from pipeline.ports import Cause, ModelUnavailable
from tests.fakes.openai import FakeOpenAI
from workers.engine_watch import watch_engine

AWAY = ModelUnavailable("away", retry_after=5, notice="Not there.", cause=Cause.AWAY)


def test_what_a_check_finds_is_logged_in_one_line_and_told_to_all_until_the_engine_is_back(make_harness):
    harness = make_harness(workers_count=0)
    parts = replace(harness.work, limiter=LocalLimiter(concurrency=5))
    models = [parts.models[parts.engine.model]]
    found = iter(
        [
            EngineChecked(usable=False, text="Not there. Start it.", trouble=AWAY),
            EngineChecked(usable=False, text="Not there. Start it.", trouble=AWAY),
            EngineChecked(usable=True, text="there"),
        ]
    )
    noticed = []

    def wait(_seconds: float) -> bool:
        noticed.append(parts.limiter.notices(models))
        return len(noticed) == 4

    with capture_logs() as logs:
        watch_engine(parts, first_check=lambda _settings: next(found), check=lambda _settings: next(found), wait=wait)
    assert noticed == [{"": "Not there."}, {"": "Not there."}, {}, {}]
    assert [(line["event"], line["found"]) for line in logs] == [
        ("engine_not_usable", "Not there. Start it."),
        ("engine_usable", "there"),
    ]


def test_the_check_never_raises_and_names_what_to_mend():
    with FakeOpenAI() as fake:
        settings = {"ENGINE": "openai", "OPENAI_BASE_URL": fake.base_url, "MODEL": "vision:7b", "OPENAI_API_KEY": fake.key}
        assert check_engine(load_settings(settings)).usable
        wrong = check_engine(load_settings({**settings, "OPENAI_API_KEY": "no"}))
        assert (wrong.usable, wrong.trouble.cause) == (False, Cause.ACCOUNT)
        assert "OPENAI_API_KEY" in wrong.text
        missing = check_engine(load_settings({**settings, "MODEL": "gone"}))
        assert (missing.usable, missing.trouble) == (False, None)
        assert "MODEL" in missing.text
    away = check_engine(load_settings(settings))
    assert (away.usable, away.trouble.cause) == (False, Cause.AWAY)
    assert check_engine(load_settings({"ENGINE": "ocr"})).usable


def test_a_process_of_its_own_finds_the_same():
    with FakeOpenAI() as fake:
        settings = {"ENGINE": "openai", "OPENAI_BASE_URL": fake.base_url, "MODEL": "vision:7b", "OPENAI_API_KEY": fake.key}
        for given in (settings, {**settings, "OPENAI_API_KEY": "no"}, {**settings, "MODEL": "gone"}):
            here, apart = check_engine(load_settings(given)), check_engine_apart(load_settings(given))
            assert (apart.usable, apart.text) == (here.usable, here.text)
            if here.trouble is None:
                assert apart.trouble is None
            else:
                assert (str(apart.trouble), vars(apart.trouble)) == (str(here.trouble), vars(here.trouble))
