"""Builds every object from the configuration: the only place that knows the concrete adapters.

Everything is imported inside the functions that need it, because each process may load only its own half: the gate
neither a web framework nor a database library, the console no proxy. ``python -m faregate.assembly gate`` (or
``console``) is how the supervisor starts them.
"""
