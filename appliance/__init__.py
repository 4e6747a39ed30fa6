"""The control plane, and the gateway that outlives it."""
