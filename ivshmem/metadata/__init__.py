"""Metadata files: create, fill, check and dump."""
