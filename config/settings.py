"""All settings. They come from the environment and are checked once at start. All faults are reported together.

A secret may also come from a file: if `NAME` is not set, the file that `NAME_FILE` names is read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator

from config.engines import CHOSEN_BY, EMBEDDED_ENGINE, EngineName, why_needed
from pipeline.models import Model, parse_models
from pipeline.outbound.addresses import Allowed, parse_allow
from pipeline.types import MB

Seconds = float
LONGEST_WAIT = 7 * 86_400  #: seconds; the longest wait before a webhook is tried again
LONGEST_TTL = 3_652 * 86_400  #: seconds; ten years
#: setting → the prefixes that its URL may start with
PARTS = {
    "database_url": ("sqlite:///", "postgresql+psycopg://"),
    "scratch_url": ("file:", "s3://"),
    "redis_url": ("embedded:", "redis://", "rediss://", "unix://"),
}
SECRETS = (
    "GEMINI_API_KEY",
    "OPENAI_API_KEY",
    "SECRET_KEY",
    "DATABASE_URL",
    "REDIS_URL",
    "AWS_SECRET_ACCESS_KEY",
    "METRICS_TOKEN",
)
_SCRATCH = re.compile(r"file:.+|s3://[A-Za-z0-9][A-Za-z0-9._-]+(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?")
#: setting → the prefix of its embedded part, and what ENV=production needs instead. A missing value means the embedded part.
EMBEDDED = {
    "DATABASE_URL": (
        "sqlite:",
        "a database server: set it, or DATABASE_URL_FILE, to postgresql+psycopg://user:password@host/name",
    ),
    "SCRATCH_URL": ("file:", "a store that all machines reach: set it to s3://bucket/prefix"),
    "REDIS_URL": ("embedded:", "a Redis server: set it, or REDIS_URL_FILE, to redis://:password@host:6379/0"),
}
SECRET_KEY_LENGTH = 32  #: the minimum number of characters with ENV=production


class SettingsFault(Exception):
    """The environment can't be used. The message lists every fault, one per line."""


class Settings(BaseModel):
    """One field per setting. A field has the setting's name in lower case."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=str.upper, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    env: Literal["development", "production"] = "development"
    allow_root: bool = False  #: whether a process with ENV=production may run as root
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    data_dir: Path = Path("var")  #: the folder of the embedded parts; created if it is missing
    secret_key: SecretStr | None = None  #: hashes API keys and encrypts webhook secrets; None: created in data_dir

    database_url: str = Field(default="", repr=False)  #: see PARTS; empty: an SQLite file in data_dir
    scratch_url: str = ""  #: file:<folder> or s3://<bucket>/<prefix>; empty: a folder in data_dir
    s3_endpoint_url: str = ""  #: empty: Amazon's own server
    aws_access_key_id: SecretStr | None = None  #: None: boto3 finds the credentials itself, for example in the machine's role
    aws_secret_access_key: SecretStr | None = Field(default=None, validate_default=True)
    aws_session_token: SecretStr | None = None  #: needed only with keys that expire
    aws_region: str = ""
    redis_url: str = Field(default="embedded:", repr=False)  #: embedded:, redis://…, rediss://… or unix://<socket>

    engine: Literal["", EngineName] = ""  #: empty: gemini if its key is set, else ocr
    gemini_api_key: SecretStr | None = Field(default=None, validate_default=True)
    gemini_base_url: str = ""  #: empty: Google's own server
    gemini_store: bool = False  #: whether Google may keep the requests
    openai_base_url: str = Field(default="", validate_default=True)  #: the server of ENGINE=openai, including its /v1
    openai_api_key: SecretStr | None = None  #: None: no key is sent, because local servers need none
    model: str = "gemini-3.5-flash-lite"  #: for jobs that name no model
    models: tuple[Model, ...] = Field(default=(), validate_default=True)  #: jobs may name these; (): see config/engines.py
    model_rpm: int = Field(default=0, ge=0)  #: requests per minute, for each model without its own limit in MODELS; 0: no limit
    model_tpm: int = Field(default=0, ge=0)  #: input tokens per minute, for the same models; 0: no limit
    model_concurrency: int = Field(default=100, ge=1, le=10_000)  #: concurrent calls per model, counted over all workers

    fetch_allow: tuple[Allowed, ...] = ()  #: networks with ports that image URLs may reach in addition to public ones
    fetch_per_host: int = Field(default=256, ge=1, le=1024)  #: most concurrent fetches from one host and port, per worker process
    webhook_allow: tuple[Allowed, ...] = ()  #: networks with ports that webhook URLs may reach in addition to public ones
    webhook_schedule: tuple[Seconds, ...] = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)  #: before each retry

    rate_limit: str = Field(
        default="600/minute", pattern=r"^[1-9][0-9]{0,8}\s*(/|per)\s*[0-9]{0,4}\s*(second|minute|hour|day)s?$"
    )
    max_open_jobs: int = Field(default=100, ge=1)  #: per account
    max_body: int = Field(default=160 * MB, ge=1)  #: bytes
    max_scratch_bytes: int = Field(default=20 * 1024 * MB, ge=1)  #: for all open jobs together
    max_stored_bytes: int = Field(default=2 * 1024 * MB, ge=1)  #: that the jobs of an account keep in the database
    max_large_bodies: int = Field(default=4, ge=1)  #: bodies over 1 MB that are parsed and stored at once, per web process
    max_waiters: int = Field(default=600, ge=1)  #: requests that a web process holds open at once

    images_per_call: int = Field(default=20, ge=1, le=50)
    merged_per_call: int = Field(default=50, ge=1, le=900)
    #: Threads per worker process for steps whose caller waits. Three quarters as many run the other steps.
    worker_concurrency: int = Field(default=40, ge=1, le=512)
    #: Further threads per worker process, for calls in the tier economy.
    economy_concurrency: int = Field(default=64, ge=1, le=512)
    economy_calls: int = Field(default=256, ge=1, le=10_000)  #: as model_concurrency, in the tier economy

    sync_wait: Seconds = Field(default=300, ge=0, le=3600)
    result_ttl: Seconds = Field(default=86_400, ge=1, le=LONGEST_TTL)
    max_input_ttl: Seconds = Field(default=86_400, ge=0, le=86_400)  #: how long a request may have its uploaded images kept
    cache_ttl: Seconds = Field(default=0, ge=0, le=LONGEST_TTL)  #: how long a record may answer later requests; 0: never
    metrics_token: SecretStr | None = None  #: lets callers from other machines read /metrics and the details of /readyz
    lease_seconds: Seconds = Field(default=60, ge=1)
    step_seconds: Seconds = Field(default=600, ge=10, validate_default=True)

    @field_validator("database_url", "scratch_url", "redis_url")
    @classmethod
    def _known_part(cls, value: str, info: ValidationInfo) -> str:
        known = PARTS[info.field_name or ""]
        if value and not value.startswith(known):
            raise ValueError(f"must start with {' or '.join(known)}")
        try:
            _ = urlsplit(value).port
        except ValueError:
            raise ValueError("must be a URL: its port or its address can't be read") from None
        return value

    @field_validator("scratch_url")
    @classmethod
    def _scratch_place(cls, value: str) -> str:
        if value and not _SCRATCH.fullmatch(value):
            raise ValueError("must be file:<folder> or s3://<bucket>/<prefix>")
        return value

    @field_validator("s3_endpoint_url")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        if value and not _is_endpoint(value):
            raise ValueError("must be http://<host>:<port> or https://<host>, with no key in it")
        return value

    @field_validator("webhook_schedule", mode="before")
    @classmethod
    def _schedule(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("webhook_schedule")
    @classmethod
    def _waits(cls, value: tuple[Seconds, ...]) -> tuple[Seconds, ...]:
        if not value or not all(0 < seconds <= LONGEST_WAIT for seconds in value):
            raise ValueError(f"must be seconds, each over 0 and at most {LONGEST_WAIT}, with commas between")
        return value

    @field_validator("models", mode="before")
    @classmethod
    def _models(cls, value: Any) -> Any:
        return parse_models(value) if isinstance(value, str) else value

    @field_validator("fetch_allow", "webhook_allow", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        return parse_allow(value) if isinstance(value, str) else value

    # A rule about two settings is checked by the validator of the later one. A model validator would not do, because pydantic
    # runs it only if every field is valid, so the user would not see all faults at once.
    @field_validator("gemini_api_key", "openai_base_url")
    @classmethod
    def _needed_by_the_engine(cls, value: Any, info: ValidationInfo) -> Any:
        name = (info.field_name or "").upper()
        why = why_needed(info.data.get("engine", ""), name)
        if why and not value and name not in (info.context or ()):
            raise ValueError(why)
        return value

    @field_validator("gemini_base_url")
    @classmethod
    def _gemini_host(cls, value: str) -> str:
        if value and not _is_endpoint(value):
            raise ValueError("must be like https://proxy.example, with no key and no query in it")
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _openai_server(cls, value: str) -> str:
        if value and not _is_endpoint(value):
            raise ValueError("must be like http://127.0.0.1:11434/v1, with no key in it")
        return value

    @field_validator("models")
    @classmethod
    def _default_among_them(cls, value: tuple[Model, ...], info: ValidationInfo) -> tuple[Model, ...]:
        default = info.data.get("model", "")
        if value and default not in [model.name for model in value]:
            raise ValueError(f"must name MODEL too, which is {default}")
        return value

    @field_validator("aws_secret_access_key")
    @classmethod
    def _both_keys(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        used = info.data.get("scratch_url", "").startswith("s3:")
        if used and bool(value) != bool(info.data.get("aws_access_key_id")):
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_SECRET_ACCESS_KEY_FILE) go together")
        return value

    @field_validator("step_seconds")
    @classmethod
    def _lease_within_step(cls, value: Seconds, info: ValidationInfo) -> Seconds:
        if info.data.get("lease_seconds", 0) > value:
            raise ValueError("LEASE_SECONDS must not be over STEP_SECONDS")
        return value

    @model_validator(mode="after")
    def _derived(self) -> Self:
        values = {
            "database_url": self.database_url or f"sqlite:///{_in_url(self.data_dir / 'extract-image.db')}",
            "scratch_url": self.scratch_url or f"file:{self.data_dir / 'scratch'}",
            "engine": self.engine or self._chosen_engine(),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        return self

    def _chosen_engine(self) -> str:
        return next((kind.name for setting, kind in CHOSEN_BY.items() if getattr(self, setting.lower())), EMBEDDED_ENGINE.name)


def _in_url(path: Path) -> str:
    """The path as the end of a URL. Characters that would begin an escape or a query are escaped."""
    return str(path).replace("%", "%25").replace("?", "%3F")


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not set(url) & set("@?# \t\r\n")
    except ValueError:  # the port or the IPv6 address is malformed
        return False


def load_settings(environ: Mapping[str, str], *, without: Collection[str] = ()) -> Settings:
    """The settings in `environ`. An empty value counts as not set. Raises SettingsFault.

    `without`: settings that the process does not need (config/roles.py). They are neither read nor demanded. If ENGINE is empty, it
    is chosen as if they had been read.
    """
    faults: list[str] = []
    values: dict[str, str] = {}
    for name in (field.upper() for field in Settings.model_fields if field.upper() not in without):
        value = environ.get(name, "")
        path = environ.get(f"{name}_FILE", "") if name in SECRETS else ""
        if not value and path:
            try:
                value = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                faults.append(f"{name}_FILE: {error}")
        if value:
            values[name] = value
    engines = [
        kind.name for name, kind in CHOSEN_BY.items() if name in without and (environ.get(name) or environ.get(f"{name}_FILE"))
    ]
    if engines:
        values.setdefault("ENGINE", engines[0])
    unread = {fault.partition("_FILE: ")[0] for fault in faults}
    faults += _production_faults(values, unread, without)
    why = why_needed(values.get("ENGINE", ""), "MODEL")  # MODEL has a default, so its validator can't see that it is missing
    if why and not values.get("MODEL"):
        faults.append(f"MODEL: {why}")
    try:
        settings = Settings.model_validate(values, context=without)
    except ValidationError as error:
        for fault in error.errors():
            name = ".".join(str(part) for part in fault["loc"]).upper()  # for a default, pydantic gives the field's name
            text = fault["msg"].removeprefix("Value error, ")
            faults.append(f"{name}: {text}" if name else text)
    if faults:
        raise SettingsFault("The settings can't be used:\n" + "\n".join(f"  {fault}" for fault in faults))
    return settings


def _production_faults(values: Mapping[str, str], unread: Collection[str], without: Collection[str]) -> list[str]:
    """What ENV=production refuses among the given values, one line per setting.

    Settings in `unread` are left out, because their file is reported already, and so are settings in `without`.
    """
    if values.get("ENV") != "production":
        return []
    faults = {name: what for name, (embedded, what) in EMBEDDED.items() if values.get(name, embedded).startswith(embedded)}
    if len(values.get("SECRET_KEY", "")) < SECRET_KEY_LENGTH:
        faults["SECRET_KEY"] = (
            f"one of at least {SECRET_KEY_LENGTH} characters: set it, or SECRET_KEY_FILE, to what `openssl rand -base64 48` "
            "prints, and keep it"
        )
    if not values.get("ENGINE") and not any(values.get(setting) or setting in unread for setting in CHOSEN_BY):
        choices = "".join(f"set {setting} (or {setting}_FILE), or " for setting in CHOSEN_BY)
        faults["ENGINE"] = f"one that is chosen: {choices}ENGINE={EMBEDDED_ENGINE.name}"
    return [f"{name}: ENV=production needs {what}" for name, what in faults.items() if name not in {*unread, *without}]
