"""A process reads the secrets that its role needs, and no others."""

import re
from pathlib import Path

import pytest

from config.roles import MODEL_KEYS, WITHOUT, names_not_for
from config.settings import SECRETS, SettingsFault, load_settings
from tests.docs.markdown import tables_with

SECRETS_SET = {
    "ENV": "production",
    "SECRET_KEY": "s" * 32,
    "DATABASE_URL": "postgresql+psycopg://u:p@db/d",
    "REDIS_URL": "redis://redis:6379/0",
    "SCRATCH_URL": "s3://bucket/prefix",
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "aws",
    "GEMINI_API_KEY": "gemini",
    "OPENAI_API_KEY": "openai",
    "METRICS_TOKEN": "token",
}


@pytest.mark.parametrize("role", WITHOUT)
def test_what_a_role_does_not_need_is_neither_read_nor_demanded(role):
    given = load_settings(SECRETS_SET, without=WITHOUT[role])
    kept = {name: value for name, value in SECRETS_SET.items() if name not in names_not_for(role)}
    alone = load_settings({**kept, "ENGINE": "gemini"}, without=WITHOUT[role])
    assert given == alone
    assert not [name for name in WITHOUT[role] if getattr(given, name.lower()) not in {None, "", "embedded:"} and name not in SQL]


SQL = {"DATABASE_URL"}  #: without a value it is derived from DATA_DIR


def test_only_workers_read_the_keys_of_models():
    assert [role for role in WITHOUT if not WITHOUT[role] >= MODEL_KEYS] == ["worker"]
    assert {"GEMINI_API_KEY", "OPENAI_API_KEY"} == MODEL_KEYS


def test_a_web_process_knows_the_engine_that_a_key_chooses_without_the_key(tmp_path: Path):
    assert load_settings({"GEMINI_API_KEY": "key"}, without=WITHOUT["web"]).engine == "gemini"
    unread = {"GEMINI_API_KEY_FILE": str(tmp_path / "not mounted here")}
    settings = load_settings(unread, without=WITHOUT["web"])
    assert (settings.engine, settings.gemini_api_key) == ("gemini", None)
    assert load_settings({"ENGINE": "ocr", "GEMINI_API_KEY": "key"}, without=WITHOUT["web"]).engine == "ocr"


def test_a_web_process_of_production_that_is_told_no_engine_is_refused():
    without_keys = {name: value for name, value in SECRETS_SET.items() if name not in MODEL_KEYS}
    with pytest.raises(SettingsFault, match="ENGINE"):
        load_settings(without_keys, without=WITHOUT["web"])


def test_the_table_of_secrets_is_the_code_s():
    rows = tables_with("docs/reference/settings.md", "process", "secrets")
    roles = ("web", "worker", "supervisor", "migrate", "command", "check")
    shown = [set(re.findall(r"[A-Z_]{5,}", row["secrets"])) for row in rows]
    assert shown == [set(SECRETS) - WITHOUT[role] for role in roles]
