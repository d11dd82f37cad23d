"""Project A, the legacy front end, reconstructed with the standard library alone; see README.md for what is known."""
