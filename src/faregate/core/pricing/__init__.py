"""Prices at a moment, the cost of a usage, and the most that a call may cost."""
