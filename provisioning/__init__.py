"""Puts agents on nodes."""
