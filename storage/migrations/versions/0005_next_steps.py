"""An account's next step is found by an index.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNRUNG = "state = 'ready' AND rung_at IS NULL"
TAKEN = "state = 'leased' OR (state = 'ready' AND rung_at IS NOT NULL)"


def upgrade() -> None:
    op.add_column("steps", sa.Column("account", sa.Text(), nullable=True))
    op.add_column("steps", sa.Column("priority", sa.Integer(), nullable=True))
    # Those that are over are never looked for.
    op.execute(
        "UPDATE steps SET account = (SELECT account FROM jobs WHERE jobs.id = steps.job),"
        " priority = (SELECT CASE WHEN waited THEN 0 ELSE 1 END FROM jobs WHERE jobs.id = steps.job)"
        " WHERE state IN ('ready', 'leased')"
    )
    op.create_index(
        "ix_steps_unrung",
        "steps",
        ["account", "priority", "id", "not_before"],
        unique=False,
        sqlite_where=sa.text(UNRUNG),
        postgresql_where=sa.text(UNRUNG),
    )
    op.create_index(
        "ix_steps_taken",
        "steps",
        ["account", "priority"],
        unique=False,
        sqlite_where=sa.text(TAKEN),
        postgresql_where=sa.text(TAKEN),
    )


def downgrade() -> None:
    op.drop_index("ix_steps_taken", table_name="steps")
    op.drop_index("ix_steps_unrung", table_name="steps")
    op.drop_column("steps", "priority")
    op.drop_column("steps", "account")
