"""The configuration: read once, checked whole, frozen."""
