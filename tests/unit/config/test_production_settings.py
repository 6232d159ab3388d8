"""ENV=production refuses what is embedded, and says all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import SettingsFault, load_settings

COMPLETE = {
    "ENV": "production",
    "DATABASE_URL": "postgresql+psycopg://user:password@database/name",
    "SCRATCH_URL": "s3://bucket/prefix",
    "REDIS_URL": "rediss://:password@redis:6380/0",
    "SECRET_KEY": "k" * 32,
    "GEMINI_API_KEY": "a-key",
}


def faults(environ: dict[str, str]) -> dict[str, str]:
    """The lines of the refusal, by the name each begins with."""
    with pytest.raises(SettingsFault) as refused:
        load_settings(environ)
    lines = [line.strip().partition(": ") for line in str(refused.value).splitlines()[1:]]
    assert len(lines) == len({name for name, _, _ in lines})
    return {name: text for name, _, text in lines}


def test_production_with_all_its_parts_is_taken():
    assert load_settings(COMPLETE).env == "production"


def test_everything_that_is_missing_is_said_at_once_with_what_to_set():
    found = faults({"ENV": "production"})
    assert set(found) == {"DATABASE_URL", "SCRATCH_URL", "REDIS_URL", "SECRET_KEY", "ENGINE"}
    assert "postgresql+psycopg://" in found["DATABASE_URL"]
    assert "s3://bucket/prefix" in found["SCRATCH_URL"]
    assert "redis://" in found["REDIS_URL"]
    assert "SECRET_KEY_FILE" in found["SECRET_KEY"]
    assert "GEMINI_API_KEY" in found["ENGINE"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "sqlite:///var/extract-image.db"),
        ("SCRATCH_URL", "file:var/scratch"),
        ("REDIS_URL", "embedded:"),
        ("SECRET_KEY", "k" * 31),
        ("SECRET_KEY", ""),
    ],
)
def test_an_embedded_value_and_a_short_secret_key_are_refused_and_nothing_else_is(name, value):
    assert list(faults({**COMPLETE, name: value})) == [name]


def test_what_production_refuses_stands_beside_the_other_faults():
    found = faults({**COMPLETE, "REDIS_URL": "embedded:", "PORT": "x", "DATABASE_URL": "mysql://h/d"})
    assert set(found) == {"REDIS_URL", "PORT", "DATABASE_URL"}
    assert "must start with" in found["DATABASE_URL"]


def test_an_engine_is_chosen_by_its_key_or_by_its_name():
    without_key = {name: value for name, value in COMPLETE.items() if name != "GEMINI_API_KEY"}
    assert list(faults(without_key)) == ["ENGINE"]
    assert load_settings({**without_key, "ENGINE": "ocr"}).engine == "ocr"
    assert load_settings(COMPLETE).engine == "gemini"


def test_a_secret_s_file_that_is_missing_is_one_fault_and_not_two(tmp_path: Path):
    names = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "GEMINI_API_KEY")
    environ = {name: value for name, value in COMPLETE.items() if name not in names}
    environ |= {f"{name}_FILE": str(tmp_path / name.lower()) for name in names}
    assert set(faults(environ)) == {f"{name}_FILE" for name in names}
    for name in names:
        (tmp_path / name.lower()).write_text(f"{COMPLETE[name]}\n")
    assert load_settings(environ) == load_settings(COMPLETE)


def test_a_refusal_tells_no_value():
    with pytest.raises(SettingsFault) as refused:
        load_settings({**COMPLETE, "SECRET_KEY": "hunter2", "DATABASE_URL": "sqlite:///hunter2"})
    assert "hunter2" not in str(refused.value)


def test_in_development_the_embedded_parts_serve():
    assert load_settings({"ENV": "development"}).redis_url == "embedded:"
