"""Commands that read and report."""
