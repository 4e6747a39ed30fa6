"""Decisions as plain functions of data and `now`. Standard library only."""
