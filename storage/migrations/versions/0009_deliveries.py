"""An index for the list of an account's webhook deliveries.

Revision ID: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

INDEX = "ix_deliveries_account_created_at"


def upgrade() -> None:
    op.create_index(INDEX, "deliveries", ["account", "created_at", "id"])


def downgrade() -> None:
    op.drop_index(INDEX, "deliveries")
