"""What a request says of its job, jobs of several rounds, and what can be followed: requests, waits, the ledger.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
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
    op.add_column("jobs", sa.Column("request_id", sa.Text(), nullable=True))
    op.add_column("steps", sa.Column("added_at", sa.BigInteger(), nullable=False, server_default="0"))
    op.drop_index(op.f("ix_ledger_account"), table_name="ledger")
    op.create_index("ix_ledger_account_id", "ledger", ["account", "id"], unique=False)
    op.create_index("ix_ledger_account_created_at", "ledger", ["account", "created_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_ledger_account_created_at", table_name="ledger")
    op.drop_index("ix_ledger_account_id", table_name="ledger")
    op.create_index(op.f("ix_ledger_account"), "ledger", ["account"], unique=False)
    op.drop_column("steps", "added_at")
    op.drop_column("jobs", "request_id")
    op.drop_column("images", "custom_id")
    op.drop_index("ix_jobs_account_status", table_name="jobs")
    op.drop_index("ix_jobs_account_created_at", table_name="jobs")
    op.create_index("ix_jobs_account_created_at", "jobs", ["account", "created_at"], unique=False)
    op.drop_column("jobs", "deadline_ms")
    op.drop_column("jobs", "fail_on_error")
    op.drop_column("jobs", "metadata")
