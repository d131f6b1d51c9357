"""Alembic's entry: the connection comes from `app.adapters.ledger.migrate`, which owns the transaction."""

from alembic import context

from app.adapters.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
