"""What is run on a node at first contact: built here, run elsewhere. Pure; asserted as strings."""
