"""The one history of the schema, for every engine."""
