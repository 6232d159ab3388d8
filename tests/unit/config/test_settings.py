"""The environment, checked once: every fault at once, and no secret in any text."""

from __future__ import annotations

import re
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse

from config.settings import SettingsFault, load_settings
from storage.account.accounts import random_id

SECRET = "hunter2-" + random_id("", 12)


def faults(**environ: str) -> list[str]:
    """The lines of the refusal, below its heading."""
    with pytest.raises(SettingsFault) as caught:
        load_settings(environ)
    heading, *lines = str(caught.value).splitlines()
    assert heading == "The settings can't be used:"
    return [line.strip() for line in lines]


def test_an_empty_environment_is_the_embedded_service_without_a_key(tmp_path):
    settings = load_settings({"DATA_DIR": str(tmp_path)})
    assert settings.database_url == f"sqlite:///{tmp_path}/extract-image.db"
    assert settings.scratch_url == f"file:{tmp_path}/scratch"
    assert (settings.redis_url, settings.engine, settings.host, settings.port) == ("embedded:", "ocr", "127.0.0.1", 8000)
    assert settings.max_body == 160 * 1024 * 1024
    assert (settings.rate_limit, settings.sync_wait, settings.max_open_jobs) == ("600/minute", 300, 100)
    assert settings.fetch_allow == ()


def test_a_gemini_key_switches_gemini_on_and_ocr_may_still_be_asked_for():
    assert load_settings({"GEMINI_API_KEY": "k"}).engine == "gemini"
    assert load_settings({"GEMINI_API_KEY": "k", "ENGINE": "ocr"}).engine == "ocr"


def test_gemini_without_a_key_is_a_fault_that_says_what_is_missing():
    assert faults(ENGINE="gemini") == ["GEMINI_API_KEY: ENGINE=gemini needs GEMINI_API_KEY (or GEMINI_API_KEY_FILE)"]


def test_an_empty_value_counts_as_not_set():
    names = ("PORT", "ENGINE", "GEMINI_API_KEY", "DATABASE_URL", "REDIS_URL", "FETCH_ALLOW", "SECRET_KEY", "MODEL", "RATE_LIMIT")
    assert load_settings(dict.fromkeys(names, "")) == load_settings({})


def test_names_that_are_not_ours_are_ignored():
    assert load_settings({"PATH": "/bin", "HOST_FILE": "/nowhere", "port": "1"}) == load_settings({})


def test_all_faults_are_listed_at_once_each_under_its_name():
    lines = faults(
        PORT="eighty",
        DATABASE_URL="mysql://h/d",
        SCRATCH_URL="ftp://h",
        REDIS_URL="http://h",
        ENGINE="oracle",
        FETCH_ALLOW="127.0.0.1",
        RATE_LIMIT="often",
        MAX_OPEN_JOBS="0",
        SYNC_WAIT="-1",
        LEASE_SECONDS="90",
        STEP_SECONDS="80",
        GEMINI_API_KEY_FILE="/nowhere/key",
        ENV="staging",
    )
    named = {line.partition(":")[0] for line in lines}
    assert named == {
        "PORT",
        "DATABASE_URL",
        "SCRATCH_URL",
        "REDIS_URL",
        "ENGINE",
        "FETCH_ALLOW",
        "RATE_LIMIT",
        "MAX_OPEN_JOBS",
        "SYNC_WAIT",
        "STEP_SECONDS",
        "GEMINI_API_KEY_FILE",
        "ENV",
    }
    assert len(lines) == len(named)


def test_what_two_settings_owe_each_other_is_listed_beside_the_faults_of_others():
    lines = faults(ENGINE="gemini", LEASE_SECONDS="700", PORT="x")
    assert len(lines) == 3
    assert "STEP_SECONDS: LEASE_SECONDS must not be over STEP_SECONDS" in lines


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "80.5"),
        ("MAX_BODY", "0"),
        ("MAX_BODY", "1e3"),
        ("MAX_WAITERS", "0"),
        ("IMAGES_PER_CALL", "51"),
        ("MERGED_PER_CALL", "901"),
        ("SYNC_WAIT", "nan"),
        ("SYNC_WAIT", "3601"),
        ("RESULT_TTL", "inf"),
        ("RESULT_TTL", "1e300"),
        ("LEASE_SECONDS", "inf"),
        ("STEP_SECONDS", "inf"),
        ("STEP_SECONDS", "nan"),
        ("RATE_LIMIT", "0/minute"),
        ("RATE_LIMIT", "600"),
        ("RATE_LIMIT", "600/fortnight"),
        ("RATE_LIMIT", "-1/minute"),
        ("S3_ENDPOINT_URL", "127.0.0.1:8333"),
        ("S3_ENDPOINT_URL", "ftp://s3.example"),
        ("S3_ENDPOINT_URL", "https://"),
        ("S3_ENDPOINT_URL", "https://user:password@s3.example"),
        ("S3_ENDPOINT_URL", "https://s3.example?key=k"),
        ("S3_ENDPOINT_URL", "https://s3.example:99999"),
        ("S3_ENDPOINT_URL", "https://[::1"),
    ],
)
def test_a_value_out_of_its_range_is_refused_under_its_name(name, value):
    assert [line.partition(":")[0] for line in faults(**{name: value}) if line.startswith(name)] == [name]


@given(
    text=st.from_regex(
        r"\A[1-9][0-9]{0,8} ?(/|per) ?[0-9]{0,4} ?(second|minute|hour|day)s?\Z",
        alphabet=st.characters(codec="ascii"),
        fullmatch=True,
    )
)
def test_a_rate_limit_that_passes_is_one_that_can_be_kept(text):
    rate = parse(load_settings({"RATE_LIMIT": text}).rate_limit)
    assert rate.amount >= 1
    assert rate.get_expiry() >= 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8333", "https://s3.example", "https://s3.example/storage/v1", "http://[::1]:9000"]
)
def test_any_endpoint_of_s3_can_be_set(url):
    assert load_settings({"S3_ENDPOINT_URL": url}).s3_endpoint_url == url


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_key_of_s3_is_a_fault_where_s3_is_used(name):
    [line] = faults(SCRATCH_URL="s3://bucket/prefix", **{name: SECRET})
    assert line.startswith("AWS_SECRET_ACCESS_KEY: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    assert SECRET not in line
    assert load_settings({name: SECRET}).scratch_url == "file:var/scratch"


@pytest.mark.parametrize("name", ["GEMINI_API_KEY", "SECRET_KEY", "AWS_SECRET_ACCESS_KEY"])
def test_a_secret_may_come_from_a_file(tmp_path, name):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    settings = load_settings({f"{name}_FILE": str(tmp_path / "secret")})
    assert getattr(settings, name.lower()).get_secret_value() == SECRET


def test_a_url_with_a_password_may_come_from_a_file(tmp_path):
    (tmp_path / "url").write_text(f"redis://:{SECRET}@127.0.0.1:6379/0\n")
    assert load_settings({"REDIS_URL_FILE": str(tmp_path / "url")}).redis_url == f"redis://:{SECRET}@127.0.0.1:6379/0"


def test_the_value_itself_has_the_word_over_its_file(tmp_path):
    (tmp_path / "secret").write_text("from the file")
    settings = load_settings({"SECRET_KEY": SECRET, "SECRET_KEY_FILE": str(tmp_path / "secret")})
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == SECRET


def test_an_empty_file_counts_as_not_set(tmp_path):
    (tmp_path / "secret").write_text("\n")
    assert load_settings({"GEMINI_API_KEY_FILE": str(tmp_path / "secret")}).engine == "ocr"


def test_a_file_that_cannot_be_read_is_a_fault_that_names_it(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    lines = faults(
        SECRET_KEY_FILE=str(tmp_path), GEMINI_API_KEY_FILE=str(tmp_path / "none"), DATABASE_URL_FILE=str(tmp_path / "binary")
    )
    assert {line.partition(":")[0] for line in lines} == {"GEMINI_API_KEY_FILE", "DATABASE_URL_FILE", "SECRET_KEY_FILE"}
    assert any(str(tmp_path / "none") in line for line in lines)


def test_no_secret_shows_in_the_settings_text():
    settings = load_settings(
        {"SECRET_KEY": SECRET, "GEMINI_API_KEY": SECRET, "REDIS_URL": f"rediss://user:{SECRET}@127.0.0.1:6380/0"}
    )
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert SECRET not in f"{settings!s} {settings.secret_key} {settings.gemini_api_key!r}"


def test_no_secret_shows_in_a_refusal_or_its_traceback(tmp_path):
    (tmp_path / "url").write_text(f"amqp://user:{SECRET}@127.0.0.1/0")
    environ = {
        "SECRET_KEY": SECRET,
        "GEMINI_API_KEY": SECRET,
        "REDIS_URL_FILE": str(tmp_path / "url"),
        "DATABASE_URL": f"oracle://user:{SECRET}@127.0.0.1/d",
        "PORT": "x",
    }
    with pytest.raises(SettingsFault) as caught:
        load_settings(environ)
    text = "".join(traceback.format_exception(caught.value))
    assert re.search(r"REDIS_URL: must start with .*redis://", text)
    assert SECRET not in text


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).port = 1


@pytest.mark.parametrize(
    "url",
    ["proxy.example", "ftp://proxy.example", "https://proxy.example?key=k", "https://user:key@proxy.example", "https://:99"],
)
def test_gemini_s_host_is_an_address_with_no_key_in_it(url):
    [line] = faults(GEMINI_BASE_URL=url)
    assert line.startswith("GEMINI_BASE_URL: must be like https://proxy.example")
    assert load_settings({"GEMINI_BASE_URL": "https://proxy.example/gemini/"}).gemini_base_url == "https://proxy.example/gemini/"


OPENAI = {"ENGINE": "openai", "OPENAI_BASE_URL": "http://127.0.0.1:11434/v1", "MODEL": "vision:7b"}


def test_an_openai_compatible_server_needs_its_address_and_a_model_and_no_key():
    settings = load_settings(OPENAI)
    assert (settings.engine, settings.openai_base_url, settings.openai_api_key) == ("openai", OPENAI["OPENAI_BASE_URL"], None)
    lines = faults(ENGINE="openai", PORT="x")
    assert [line.partition(":")[0] for line in lines] == ["MODEL", "PORT", "OPENAI_BASE_URL"]


@pytest.mark.parametrize("url", ["127.0.0.1:11434/v1", "http://", "http://user:secret@host/v1", "http://host/v1?key=secret"])
def test_the_address_of_an_openai_compatible_server_is_a_url_without_a_key(url):
    [line] = faults(**{**OPENAI, "OPENAI_BASE_URL": url})
    assert line.startswith("OPENAI_BASE_URL: must be like")
    assert "secret" not in line


def test_the_key_of_an_openai_compatible_server_may_come_from_a_file(tmp_path):
    (tmp_path / "key").write_text("sk-1\n")
    settings = load_settings({**OPENAI, "OPENAI_API_KEY_FILE": str(tmp_path / "key")})
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk-1"
