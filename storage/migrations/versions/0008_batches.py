"""Names of jobs, and batches of jobs that belong together.

Revision ID: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_account_batch"
HAS_BATCH = sa.text("batch IS NOT NULL")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("name", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("batch", sa.Text(), nullable=True))
    op.create_index(INDEX, "jobs", ["account", "batch", "created_at"], sqlite_where=HAS_BATCH, postgresql_where=HAS_BATCH)


def downgrade() -> None:
    op.drop_index(INDEX, "jobs")
    op.drop_column("jobs", "batch")
    op.drop_column("jobs", "name")
