/* SPDX-License-Identifier: BSD-3-Clause */
/* hypervisor.h: identifies the hypervisor by CPUID. */
#ifndef IVS_HYPERVISOR_H
#define IVS_HYPERVISOR_H

/* Writes the hypervisor's CPUID signature, such as "KVMKVMKVM" or "TCGTCGTCGTCG"; "" on bare metal and on processors
 * other than x86. */
void ivs_hypervisor(char name[13]);

#endif
