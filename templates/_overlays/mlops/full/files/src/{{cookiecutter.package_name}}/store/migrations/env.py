"""Run by Alembic from `Database.migrate`, within the transaction that it opened."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    version_table=context.config.attributes["version_table"],
)
context.run_migrations()
