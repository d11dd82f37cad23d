"""Run by Alembic for each upgrade: within the transaction that the caller has begun, under the caller's lock."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="appointments_schema")
context.run_migrations()
