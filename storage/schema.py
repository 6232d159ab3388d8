"""The tables. Times are milliseconds since 1970 by the database's clock; the migrations make exactly this."""

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

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: SQLite numbers rows only in a column of type INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")

accounts_table = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("available", BigInteger, nullable=False, default=0),  # credits that may be reserved
    Column("held", BigInteger, nullable=False, default=0),  # credits reserved by open jobs
    Column("charged", BigInteger, nullable=False, default=0),  # credits spent, ever
    Column("webhook_secret", Text),  # encrypted with SECRET_KEY; made when it is first needed
    Column("webhook_secret_before", Text),  # the one before, encrypted: signs too while receivers change over
    Column("webhook_secret_before_until", BigInteger),  # when it no longer does
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
)

jobs_table = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", Text, ForeignKey("accounts.id"), nullable=False),
    Column("round", Integer, nullable=False, default=1),
    Column("status", Text, nullable=False),  # pipeline.types.JobStatus
    Column("waited", Boolean, nullable=False),  # somebody holds a connection for it: goes first
    Column("input_method", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("options", JSON, nullable=False),  # what else of the question: pipeline.types.Question without its prompt
    Column("total", Integer, nullable=False),  # images
    Column("request_source", Text),
    Column("request_id", Text),  # of the HTTP request that made its round: in each line logged for it
    Column("webhook_url", Text),  # who is told of its end
    Column("metadata", JSON),  # of the caller's own, echoed
    Column("fail_on_error", Boolean, nullable=False, default=False, server_default=false()),  # all images or nothing
    Column("engine", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("deadline_at", BigInteger, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False, default=3_600_000, server_default="3600000"),  # for each round
    Column("ttl_ms", BigInteger, nullable=False),  # how long its results are kept once it has ended
    Column("expires_at", BigInteger),  # results are gone after it; NULL before the end and after the purge
    Column("error_code", Text),
    Column("error_message", Text),
    Column("warnings", JSON, nullable=False),  # list of texts
    Column("result", Text),
    Column("credits", Integer, nullable=False, default=0),  # charged, all rounds together
    Column("scratch_bytes", BigInteger, nullable=False, default=0),  # put for it so far: counted until it ends
    Index("ix_jobs_account_created_at", "account", "created_at", "id"),
    Index("ix_jobs_account_status", "account", "status", "created_at", "id"),
    Index(
        "ix_jobs_open",
        "account",
        "deadline_at",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
    Index(
        "ix_jobs_expires_at",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
)

#: What keeps a request that is sent again from becoming a second job. Written with the job, kept as long.
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
    Column("source", Text),  # its URL; NULL where its bytes came with the request, and after the purge
    Column("custom_id", Text),  # the caller's name of it
    Column("state", Text, nullable=False),  # waiting, staged, done, failed
    Column("code", Text),  # pipeline.types.ItemCode of a failed one
    Column("detail", Text),
    Column("sha256", Text),
    Column("bytes", BigInteger),  # as received
    Column("attempts", Integer, nullable=False, default=1),  # rounds it was in: the last one is the job's for who was in it
    Column("result", JSON),  # with one result for each image: this one's
    Column("note", Text),  # what the item says beside its answer (pipeline.notes)
)

chunks_table = Table(
    "chunks",
    metadata,
    Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("no", Integer, primary_key=True, autoincrement=False),
    Column("first", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("open", Boolean, nullable=False),  # still has images to settle
    Column("input", Text),  # scratch key of its base64 texts
    Column("object", Text),  # scratch key that the winning stage step recorded
    Column("replies", JSON, nullable=False),  # list of {indexes, text}
    Column("usage", JSON, nullable=False),  # pipeline.types.Usage
    Column("progress", JSON(none_as_null=True)),  # what extract has begun: pipeline.asking.progress.Progress
)

#: Answers about parts of a job's images that the model has made one, with `synthesize`.
merges_table = Table(
    "merges",
    metadata,
    Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),  # SHA-256 of the answers that it was made of
    Column("text", Text),  # NULL: the model gave nothing that can be used
    Column("usage", JSON, nullable=False),  # pipeline.types.Usage
)

#: Records that were answered before: what a request with `cache` takes instead of a call.
answers_table = Table(
    "answers",
    metadata,
    Column("account", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("key", Text, primary_key=True),  # pipeline.records.answer_key
    Column("result", JSON, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

# What is kept apart by an index of its own, in the words that a query has to use too: with parameters for the states SQLite can't
# tell that the index will do.
OPEN_STEP = "state IN ('ready', 'leased')"
UNRUNG_STEP = "state = 'ready' AND rung_at IS NULL"
TAKEN_STEP = "state = 'leased' OR (state = 'ready' AND rung_at IS NOT NULL)"  # a place of its account's window

steps_table = Table(
    "steps",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("account", Text),  # the job's, as the next: who looks for an account's next step reads few rows; old steps have none
    Column("priority", Integer),  # 0: somebody held a connection for the job when it was added; 1: nobody did
    Column("kind", Text, nullable=False),  # stage, extract, finalize, cleanup, webhook
    Column("part", Integer, nullable=False),  # the chunk's number; 0 and up for the others
    Column("state", Text, nullable=False),  # ready, leased, done, split, dead, cancelled
    Column("epoch", Integer, nullable=False, default=0),  # raised by each claim; every write of the step names it
    Column("tries", Integer, nullable=False, default=0),  # failures that count
    Column("expiries", Integer, nullable=False, default=0),  # leases that ran out
    Column("deaths", Integer, nullable=False, default=0, server_default="0"),  # of processes that ran nothing else
    Column("owner", Text),
    Column("lease_until", BigInteger),
    Column("not_before", BigInteger, nullable=False, default=0),
    Column("rung_at", BigInteger),
    Column("rings", Integer, nullable=False, default=0),
    Column("added_at", BigInteger, nullable=False, default=0, server_default="0"),  # with not_before: since when it waits
    UniqueConstraint("job", "round", "kind", "part"),
    Index(
        "ix_steps_open",
        "state",
        "not_before",
        sqlite_where=text(OPEN_STEP),
        postgresql_where=text(OPEN_STEP),
    ),
    Index(
        "ix_steps_unrung",
        "account",
        "priority",
        "id",
        "not_before",
        sqlite_where=text(UNRUNG_STEP),
        postgresql_where=text(UNRUNG_STEP),
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
    Column("body", Text),  # the same bytes at each attempt; NULL when the job's results have expired
    Column("state", Text, nullable=False),  # pending, delivered, dead
    Column("attempts", JSON, nullable=False),  # list of {at, status, error, ms}
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("job", "round"),
)
