"""Commands that run guests."""
