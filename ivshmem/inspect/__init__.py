"""Inspection of files: prefixes, objects and the processes that use them."""
