"""The books in one SQLite file: nothing else to install, one process that writes."""
