"""Double entry: events, the states of a reservation, the postings they cause, and an in-memory oracle."""
