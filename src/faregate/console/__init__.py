"""The console: admin API, spend view, the link to the gate. It owns the books, and refuses to know how
they are stored."""
