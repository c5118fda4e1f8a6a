"""The runtime directory of a file_prefix and its locks."""
