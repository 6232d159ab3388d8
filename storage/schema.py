"""The tables. Times are milliseconds since 1970 by the database's clock. The migrations create exactly this schema."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from pipeline.types import ImageState, StepState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: SQLite assigns row ids only to a column of type INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")

accounts_table = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("available", BigInteger, nullable=False, default=0),  # credits that may be reserved
    Column("held", BigInteger, nullable=False, default=0),  # credits reserved by open jobs
    Column("charged", BigInteger, nullable=False, default=0),  # credits spent since the account exists
    Column("stored_bytes", BigInteger, nullable=False, default=0, server_default="0"),  # the sum of its jobs' stored_bytes
    Column("open_jobs", BigInteger, nullable=False, default=0, server_default="0"),  # see storage/job/totals.py
    Column("kept_bytes", BigInteger, nullable=False, default=0, server_default="0"),  # see storage/job/totals.py
    Column("webhook_secret", Text),  # encrypted with SECRET_KEY; made when it is first needed
    Column("webhook_secret_before", Text),  # the previous secret, encrypted: it also signs while receivers switch
    Column("webhook_secret_before_until", BigInteger),  # the previous secret signs until then
    Column("created_at", BigInteger, nullable=False),
)

api_keys_table = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),  # the public part of the key
    Column("account", Text, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False),  # HMAC-SHA256 of the whole key, hex
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),  # written at most once an hour
)

jobs_table = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", Text, ForeignKey("accounts.id"), nullable=False),
    Column("round", Integer, nullable=False, default=1),
    Column("status", Text, nullable=False),  # pipeline.types.JobStatus
    Column("waited", Boolean, nullable=False),  # a caller holds a connection for the job, so it has priority
    Column("input_method", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("options", JSON, nullable=False),  # pipeline.types.Question without its prompt
    Column("total", Integer, nullable=False),  # number of images
    Column("request_source", Text),
    Column("request_id", Text),  # id of the HTTP request that started the round; each log line of the job carries it
    Column("traceparent", Text),  # the trace of that request, if it was traced
    Column("webhook_url", Text),  # receives an event when the job ends
    Column("metadata", JSON),  # the caller's own values, returned unchanged
    Column("name", Text),  # what people call the job
    Column("batch", Text),  # the caller's id of several jobs that belong together
    Column("fail_on_error", Boolean, nullable=False),  # the job fails if any image fails
    Column("engine", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("tier", Text, nullable=False, default="standard", server_default="standard"),  # pipeline.types.Tier
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("deadline_at", BigInteger, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),  # time that each round may take
    Column("ttl_ms", BigInteger, nullable=False),  # how long results are kept after the job's end
    Column("expires_at", BigInteger),  # results are deleted after this time; NULL before the end and after the purge
    Column("error_code", Text),
    Column("error_message", Text),
    Column("warnings", JSON, nullable=False),  # list of texts
    Column("result", Text),
    Column("credits", Integer, nullable=False, default=0),  # credits charged, sum of all rounds
    # Bytes that were put into scratch for the job so far. They count towards the limit until the job ends.
    Column("scratch_bytes", BigInteger, nullable=False, default=0),
    Column("keep_ms", BigInteger, nullable=False, default=0),  # time that uploaded images are kept after each round's end
    Column("input_bytes", BigInteger, nullable=False, default=0),  # bytes of the images as they came with the request
    # Uploaded images are kept in scratch until then. NULL while a round runs, and when none are kept any more.
    Column("inputs_expire_at", BigInteger),
    # A list of pipeline.types.Review: when an image of the job needs a review. NULL: its records are not looked for in the pictures.
    Column("evidence", JSON(none_as_null=True)),
    Column("max_money", BigInteger),  # the most that the model calls may cost, in billionths of a dollar; NULL: no limit
    Column("spent_money", BigInteger, nullable=False, default=0),  # cost of the counted calls; only if max_money is set
    Column(
        "stored_bytes", BigInteger, nullable=False, default=0, server_default="0"
    ),  # what it keeps in SQL: see storage/job/stored.py
    Index("ix_jobs_account_created_at", "account", "created_at", "id"),
    Index(
        "ix_jobs_account_batch",
        "account",
        "batch",
        "created_at",
        sqlite_where=text("batch IS NOT NULL"),
        postgresql_where=text("batch IS NOT NULL"),
    ),
    Index("ix_jobs_account_status", "account", "status", "created_at", "id"),
    Index(
        "ix_jobs_open",
        "account",
        "deadline_at",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
    Index(
        "ix_jobs_inputs_expire_at",
        "inputs_expire_at",
        sqlite_where=text("inputs_expire_at IS NOT NULL"),
        postgresql_where=text("inputs_expire_at IS NOT NULL"),
    ),
    Index(
        "ix_jobs_expires_at",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
)

SHARDS = 16  #: a power of two, well above the number of transactions that commit at the same moment

#: The bytes in scratch of all jobs are the sum of these rows. The migration makes the rows. See storage/job/totals.py.
scratch_totals_table = Table(
    "scratch_totals",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),  # from 0 to SHARDS - 1
    Column("bytes", BigInteger, nullable=False),  # may be negative: only the sum of all rows has a meaning
)

#: With these rows a repeated request does not create a second job. A row is written and deleted together with its job.
idempotency_keys_table = Table(
    "idempotency_keys",
    metadata,
    Column("account", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("key", Text, primary_key=True),  # the header's text
    Column("body_hash", Text, nullable=False),  # SHA-256 of the body, hex
    Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
)

images_table = Table(
    "images",
    metadata,
    Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("source", Text),  # the image's URL, or its file's name; NULL for base64, and after the purge
    Column("custom_id", Text),  # the caller's name for the image; without one, the file's name
    Column("state", Text, nullable=False),  # pipeline.types.ImageState
    Column("code", Text),  # pipeline.types.ItemCode of a failed image
    Column("detail", Text),
    Column("sha256", Text),
    Column("bytes", BigInteger),  # size of the image as it was received
    Column("attempts", Integer, nullable=False, default=1),  # number of the last round that the image took part in
    Column("result", JSON),  # the image's own record, if the job has one result for each image
    Column("note", Text),  # remarks about the image (pipeline.notes)
    Column("tier", Text),  # the tier in which the call that answered it was served; NULL: no call answered it
    Column("corrections", JSON(none_as_null=True)),  # what people changed: see storage/job/corrections.py
    Column("checked", Boolean, nullable=False, default=False, server_default=false()),  # a person has checked the record
    Column("revision", Integer, nullable=False, default=0, server_default="0"),  # how often the corrections were changed
    Column("evidence", JSON(none_as_null=True)),  # where the record's values stand: see storage/job/evidence.py
    Column("needs_review", Boolean, nullable=False, default=False, server_default=false()),  # by its evidence
)

chunks_table = Table(
    "chunks",
    metadata,
    Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("no", Integer, primary_key=True, autoincrement=False),
    Column("first", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("open", Boolean, nullable=False),  # some of its images have no outcome yet
    Column("input", Text),  # scratch key of its base64 texts
    Column("object", Text),  # scratch key of its staged images, recorded by the stage step that committed
    Column("replies", JSON, nullable=False),  # list of {indexes, text}
    Column("usage", JSON, nullable=False),  # pipeline.types.Usage
    Column("progress", JSON(none_as_null=True)),  # progress of the extract step: pipeline.asking.progress.Progress
)

#: Partial answers of a job that the model has merged into one. Used with `synthesize`.
merges_table = Table(
    "merges",
    metadata,
    Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),  # SHA-256 of the answers that were merged
    Column("text", Text),  # NULL: the model's answer was not usable
    Column("usage", JSON, nullable=False),  # pipeline.types.Usage
)

#: The answer cache. A request with `cache` uses these records instead of calling the model.
answers_table = Table(
    "answers",
    metadata,
    Column("account", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("key", Text, primary_key=True),  # pipeline.records.answer_key
    Column("result", JSON, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

# Conditions of the partial indexes. A query must use the same text: with bound parameters for the states, SQLite can't tell that
# the index applies.
OPEN_STEP = f"state IN ('{StepState.READY}', '{StepState.LEASED}')"
FRESH_STEP = f"state = '{StepState.READY}' AND rung_at IS NULL AND not_before = 0"
# Steps that were handed back, or added, for a later time. Many webhooks of an account may be among them, most of them not due yet.
DELAYED_STEP = f"state = '{StepState.READY}' AND rung_at IS NULL AND not_before > 0"
# Steps that count towards their account's window.
TAKEN_STEP = f"state = '{StepState.LEASED}' OR (state = '{StepState.READY}' AND rung_at IS NOT NULL)"

#: The states of steps that have not ended, for queries that find their rows by another index.
OPEN_STATES = (StepState.READY.value, StepState.LEASED.value)
#: The states of images that have no outcome yet.
OPEN_IMAGES = (ImageState.WAITING.value, ImageState.STAGED.value)

steps_table = Table(
    "steps",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("account", Text, nullable=False),  # the job's account, copied so that an index finds an account's next step
    # 0: a caller held a connection for the job when the step was added; 1: not; 2: its calls are slow, in the tier economy
    Column("priority", Integer, nullable=False),
    Column("kind", Text, nullable=False),  # pipeline.types.StepKind
    Column("part", Integer, nullable=False),  # the chunk's number for stage and extract; for other kinds it counts up from 0
    Column("state", Text, nullable=False),  # pipeline.types.StepState
    Column("epoch", Integer, nullable=False, default=0),  # raised by each claim; every write of the step names it
    Column("tries", Integer, nullable=False, default=0),  # failures that count towards giving the step up
    Column("expiries", Integer, nullable=False, default=0),  # leases that expired
    Column("deaths", Integer, nullable=False, default=0),  # processes that died while they ran only this step
    # Highest cost of the step's model call in flight, in billionths of a dollar. It counts only while the step is leased.
    Column("held_money", BigInteger, nullable=False, default=0),
    Column("owner", Text),
    Column("lease_until", BigInteger),
    Column("not_before", BigInteger, nullable=False, default=0),
    Column("rung_at", BigInteger),
    Column("rings", Integer, nullable=False, default=0),
    Column("added_at", BigInteger, nullable=False),  # the step waits since the later of added_at and not_before
    UniqueConstraint("job", "round", "kind", "part"),
    Index(
        "ix_steps_open",
        "state",
        "not_before",
        sqlite_where=text(OPEN_STEP),
        postgresql_where=text(OPEN_STEP),
    ),
    Index(
        "ix_steps_fresh",
        "account",
        "priority",
        "id",
        sqlite_where=text(FRESH_STEP),
        postgresql_where=text(FRESH_STEP),
    ),
    Index(
        "ix_steps_delayed",
        "account",
        "priority",
        "not_before",
        "id",
        sqlite_where=text(DELAYED_STEP),
        postgresql_where=text(DELAYED_STEP),
    ),
    Index(
        "ix_steps_taken",
        "account",
        "priority",
        sqlite_where=text(TAKEN_STEP),
        postgresql_where=text(TAKEN_STEP),
    ),
)

ledger_table = Table(
    "ledger",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("account", Text, ForeignKey("accounts.id"), nullable=False),
    Column("job", Text),  # no foreign key: the ledger outlives the job
    Column("round", Integer),
    Column("kind", Text, nullable=False),  # grant, reserve, charge, release
    Column("amount", BigInteger, nullable=False),  # credits, never negative
    # What the model calls of the round cost, in billionths of a dollar, by the prices in the settings. Only rows of kind charge have it.
    Column("money", BigInteger, nullable=False, default=0, server_default="0"),
    # The part of it that was paid for calls in the tier economy.
    Column("economy_money", BigInteger, nullable=False, default=0, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("job", "round", "kind"),
    Index("ix_ledger_account_id", "account", "id"),
    Index("ix_ledger_account_created_at", "account", "created_at"),
)

deliveries_table = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),  # the webhook-id
    Column("job", Text, nullable=False, index=True),
    Column("round", Integer, nullable=False),
    Column("account", Text, ForeignKey("accounts.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("event", Text, nullable=False),  # job.succeeded, job.partial, job.failed, job.cancelled
    Column("body", Text),  # the same bytes for each attempt; NULL after the job's results have expired
    Column("state", Text, nullable=False),  # pending, delivered, dead
    Column("attempts", JSON, nullable=False),  # list of {at, status, error, ms, text}
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("job", "round"),
    Index("ix_deliveries_account_created_at", "account", "created_at", "id"),
)
