"""The append-only file that everything is written to first: framing, segments, writer, reader, projector, verifier."""
