"""The log, its keys, its open work, and how far its consumers have come: what one process needs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text(collation="C")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("stream_id", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("stream_id", "version"),
    )
    op.create_table(
        "subject_keys",
        sa.Column("name", sa.LargeBinary, primary_key=True),
        sa.Column("ref", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("key", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "open_work",
        sa.Column("stream_id", sa.LargeBinary, primary_key=True),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("lane", TEXT, nullable=False),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("starts_at", sa.BigInteger, nullable=False),
        sa.Column("deadline_at", sa.BigInteger),
        sa.Column("in_flight", sa.Boolean, nullable=False),
        sa.Column("parked", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
    )
    op.create_index("open_work_due", "open_work", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_index("open_work_lane", "open_work", ["lane", "starts_at", "due_at"])
    op.create_index(
        "open_work_deadline", "open_work", ["deadline_at"], postgresql_where=sa.text("deadline_at IS NOT NULL")
    )
    op.create_index("open_work_in_flight", "open_work", ["owner"], postgresql_where=sa.text("in_flight"))
    op.create_table(
        "checkpoints",
        sa.Column("consumer", TEXT, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "snapshots",
        sa.Column("stream_id", sa.LargeBinary, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    # The lowest revision that a program has to know that opens this database.
    op.create_table("appointments_schema_needed", sa.Column("revision", sa.Integer, primary_key=True))
    op.execute("INSERT INTO appointments_schema_needed VALUES (1)")
