"""Commands that create shares and give them to VMs."""
