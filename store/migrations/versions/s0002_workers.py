"""Many workers share the log: who they are, what they know together of each target, and what one alone holds.

It only adds: a program that knows 0001 goes on beside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text(collation="C")


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "workers",
        sa.Column("owner", TEXT, primary_key=True),
        sa.Column("beat_at", sa.BigInteger, nullable=False),
        sa.Column("runs", TEXT, nullable=False),
    )
    op.create_table(
        "lanes",
        sa.Column("target", TEXT, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failed_at", sa.BigInteger),
        sa.Column("opened", sa.Integer, nullable=False),
        sa.Column("open_until", sa.BigInteger),
        sa.Column("probe_until", sa.BigInteger),
        sa.Column("theoretical_at", sa.BigInteger),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table("held_names", sa.Column("name", TEXT, primary_key=True), sa.Column("owner", TEXT, nullable=False))
