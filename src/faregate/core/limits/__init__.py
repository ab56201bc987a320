"""One algebra for every limit: hold an allowance, in a unit, for a window; then settle, release or keep as unknown."""
