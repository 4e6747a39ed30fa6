"""Which agent gets the next request: one policy a file."""
