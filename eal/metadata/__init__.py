"""Metadata files and the table format that the registry shares with them."""
