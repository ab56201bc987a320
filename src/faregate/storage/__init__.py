"""The books: one schema, and one folder for each engine that keeps it."""
