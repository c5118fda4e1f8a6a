"""Placement: a plan of CPUs and memory for apps and VMs."""
