"""Where the values of records stand in their pictures, and which images a person should look at.

Revision ID: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

NEW: tuple[tuple[str, sa.Column[object]], ...] = (
    ("jobs", sa.Column("evidence", sa.JSON(none_as_null=True), nullable=True)),
    ("images", sa.Column("evidence", sa.JSON(none_as_null=True), nullable=True)),
    ("images", sa.Column("needs_review", sa.Boolean(), server_default=sa.false(), nullable=False)),
)


def upgrade() -> None:
    for table, column in NEW:
        op.add_column(table, column)


def downgrade() -> None:
    for table, column in reversed(NEW):
        op.drop_column(table, column.name)
