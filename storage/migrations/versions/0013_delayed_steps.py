"""Steps that wait for their time get an index of their own, so that choosing the next steps does not read past them.

Revision ID: 0013
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_UNRUNG = "state = 'ready' AND rung_at IS NULL"


def upgrade() -> None:
    _create("ix_steps_fresh", ["account", "priority", "id"], f"{_UNRUNG} AND not_before = 0")
    _create("ix_steps_delayed", ["account", "priority", "not_before", "id"], f"{_UNRUNG} AND not_before > 0")
    op.drop_index("ix_steps_unrung", "steps")


def downgrade() -> None:
    _create("ix_steps_unrung", ["account", "priority", "id", "not_before"], _UNRUNG)
    op.drop_index("ix_steps_delayed", "steps")
    op.drop_index("ix_steps_fresh", "steps")


def _create(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "steps", columns, sqlite_where=text(where), postgresql_where=text(where))
