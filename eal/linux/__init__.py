"""Linux: mappings, memory types, kernel lockdown, processes."""
