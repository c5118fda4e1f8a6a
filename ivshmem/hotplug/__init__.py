"""Hot plug: shares into and out of a running QEMU over QMP."""
