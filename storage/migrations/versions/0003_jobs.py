"""What a request says of its job, and jobs of several rounds.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("metadata", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("fail_on_error", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("deadline_ms", sa.BigInteger(), nullable=False, server_default="3600000"))
    op.drop_index("ix_jobs_account_created_at", table_name="jobs")
    op.create_index("ix_jobs_account_created_at", "jobs", ["account", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_account_status", "jobs", ["account", "status", "created_at", "id"], unique=False)
    op.add_column("images", sa.Column("custom_id", sa.Text(), nullable=True))
    op.execute("UPDATE images SET attempts = 1")


def downgrade() -> None:
    op.drop_column("images", "custom_id")
    op.drop_index("ix_jobs_account_status", table_name="jobs")
    op.drop_index("ix_jobs_account_created_at", table_name="jobs")
    op.create_index("ix_jobs_account_created_at", "jobs", ["account", "created_at"], unique=False)
    op.drop_column("jobs", "deadline_ms")
    op.drop_column("jobs", "fail_on_error")
    op.drop_column("jobs", "metadata")
