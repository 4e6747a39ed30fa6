"""What computes. `base.py` says what an engine is; each other file is one."""
