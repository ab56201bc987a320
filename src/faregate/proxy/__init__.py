"""The data plane: one process that owns the allowances and the journal and lets calls through.

It speaks HTTP/1.1 by itself on both sides (docs/performance.md says why) and knows nothing of SQL, YAML or the
console's framework. ``exchange`` reads as the ten steps of one call; everything else here serves it.
"""
