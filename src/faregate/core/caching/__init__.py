"""Which calls are the same, and when an answer may be given again."""
