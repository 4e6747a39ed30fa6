"""What runs on a node: one process that serves one model revision."""
