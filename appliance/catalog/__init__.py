"""Where models come from: sources, conversion, and the content-addressed store. No Django."""
