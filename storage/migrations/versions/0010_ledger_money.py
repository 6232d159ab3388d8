"""What the model calls of a round cost, in the ledger, which outlives the job.

Revision ID: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ledger", sa.Column("money", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("ledger", "money")
