"""A database may be one of several, each with the appointments of some tenants: which one, and of which.

It only adds: a program that knows 0002 goes on beside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TEXT = sa.Text(collation="C")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "shard",
        sa.Column("alone", sa.Boolean, sa.CheckConstraint("alone"), primary_key=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("names", TEXT, nullable=False),
    )
