"""What there is to know about a node: one fact per file, each a plain function of text."""

from provisioning.facts.hardware import Hardware

__all__ = ["Hardware"]
