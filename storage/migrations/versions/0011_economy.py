"""The tier of a job, of each image's answer, and of the money in the ledger.

Revision ID: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("tier", sa.Text(), server_default="standard", nullable=False))
    op.add_column("images", sa.Column("tier", sa.Text()))
    op.add_column("ledger", sa.Column("economy_money", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("ledger", "economy_money")
    op.drop_column("images", "tier")
    op.drop_column("jobs", "tier")
