"""Forms. Those that change what is wanted do it through a verb."""
