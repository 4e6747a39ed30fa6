"""The inference gateway: accepts, queues, chooses, forwards and counts. No Django."""
