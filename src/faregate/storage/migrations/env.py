"""Runs the migrations on the connection that ``migrate`` was given; there is no other way to run them."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=None,
    transaction_per_migration=False,
)
context.run_migrations()
