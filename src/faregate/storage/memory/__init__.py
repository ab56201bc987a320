"""The books in memory: no file, nothing kept, the same answers."""
