"""What people corrected and checked, and when a key was last used.

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NEW: tuple[tuple[str, sa.Column[object]], ...] = (
    ("api_keys", sa.Column("last_used_at", sa.BigInteger(), nullable=True)),
    ("images", sa.Column("corrections", sa.JSON(none_as_null=True), nullable=True)),
    ("images", sa.Column("checked", sa.Boolean(), server_default=sa.false(), nullable=False)),
    ("images", sa.Column("revision", sa.Integer(), server_default="0", nullable=False)),
)


def upgrade() -> None:
    for table, column in NEW:
        op.add_column(table, column)


def downgrade() -> None:
    for table, column in reversed(NEW):
        op.drop_column(table, column.name)
