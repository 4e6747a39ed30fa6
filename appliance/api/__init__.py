"""The management REST API under `/api/`: the verbs, for programs."""
