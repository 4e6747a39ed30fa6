"""The admin: rows to look at, and forms that call verbs. One file per aggregate."""

from dashboard.admin import (
    agents,
    audit,
    decisions,
    deployments,
    enrolments,
    inference_models,
    keys,
    nodes,
    people,
)

__all__ = [
    "agents",
    "audit",
    "decisions",
    "deployments",
    "enrolments",
    "inference_models",
    "keys",
    "nodes",
    "people",
]
