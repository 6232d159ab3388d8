"""Idempotency keys, webhooks, and steps that run alone.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("webhook_secret", sa.Text(), nullable=True))
    op.add_column("accounts", sa.Column("webhook_secret_before", sa.Text(), nullable=True))
    op.add_column("accounts", sa.Column("webhook_secret_before_until", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("webhook_url", sa.Text(), nullable=True))
    op.add_column("steps", sa.Column("deaths", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "idempotency_keys",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_idempotency_keys_account")),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_idempotency_keys_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("account", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_job"), "idempotency_keys", ["job"], unique=False)


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    op.drop_column("steps", "deaths")
    op.drop_column("jobs", "webhook_url")
    op.drop_column("accounts", "webhook_secret_before_until")
    op.drop_column("accounts", "webhook_secret_before")
    op.drop_column("accounts", "webhook_secret")
