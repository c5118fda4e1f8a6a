"""ivshmem: the host side."""
