"""Replays traffic through the policies that scale: what would it have cost, what would it have missed."""
