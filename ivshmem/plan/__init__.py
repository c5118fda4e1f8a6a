"""Plans: a TOML file that `ivshmem up` applies and `ivshmem down` removes."""
