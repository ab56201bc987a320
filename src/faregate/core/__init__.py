"""The pure core: decisions about money, usage, limits and the ledger.

Nothing in here waits, reads a clock, draws a random number, logs or touches a file: time, ids and randomness come in
as arguments, and expected refusals leave as values. It imports the standard library only.
"""
