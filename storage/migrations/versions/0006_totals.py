"""The totals of open jobs, kept images and scratch, counted from the jobs that are there.

Revision ID: 0006

The numbers 0002 to 0005 were used before the first schema was written anew. `migrate` must not take such a database for a current one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0001"
branch_labels = None
depends_on = None

SHARDS = 16
NEW = ("open_jobs", "kept_bytes")


def upgrade() -> None:
    for name in NEW:
        op.add_column("accounts", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    shards = op.create_table(
        "scratch_totals",
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shard", name=op.f("pk_scratch_totals")),
    )
    op.bulk_insert(shards, [{"shard": shard, "bytes": 0} for shard in range(SHARDS)])
    # A process of the older version may run meanwhile. The supervisor counts again what it changes.
    op.execute(
        "UPDATE accounts SET"
        " open_jobs = (SELECT COUNT(*) FROM jobs WHERE jobs.account = accounts.id AND finished_at IS NULL),"
        " kept_bytes = (SELECT COALESCE(SUM(input_bytes), 0) FROM jobs WHERE jobs.account = accounts.id"
        " AND ((finished_at IS NULL AND keep_ms > 0) OR inputs_expire_at IS NOT NULL))"
    )
    op.execute(
        "UPDATE scratch_totals SET bytes ="
        " (SELECT COALESCE(SUM(CASE WHEN finished_at IS NULL THEN scratch_bytes ELSE input_bytes END), 0) FROM jobs"
        " WHERE finished_at IS NULL OR inputs_expire_at IS NOT NULL) WHERE shard = 0"
    )


def downgrade() -> None:
    op.drop_table("scratch_totals")
    for name in reversed(NEW):
        op.drop_column("accounts", name)
