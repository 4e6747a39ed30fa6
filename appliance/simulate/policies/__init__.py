"""The policies that ours is compared with, one file each, at their defaults. Standard library only."""
