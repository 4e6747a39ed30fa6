"""How dates and times are written, for Django to look up by language."""
