"""A report of a clip: one page for a browser, and the same as JSON."""
