"""Command lines and XML for QEMU, libvirt and Cloud Hypervisor."""
