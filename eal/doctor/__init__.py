"""Doctor: checks of a machine and its ivshmem devices."""
