"""Sums are kept for slots of a quarter of an hour, so that windows in every time zone begin at the start of one."""

SLOT_NANOS = 15 * 60 * 1_000_000_000
