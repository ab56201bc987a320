"""Work that repeats beside the requests, in the console's process: small jobs, a decision and a shell each."""
