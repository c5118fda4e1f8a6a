/* SPDX-License-Identifier: BSD-3-Clause */
/* hypervisor.h: what this machine runs on. */
#ifndef IVS_HYPERVISOR_H
#define IVS_HYPERVISOR_H

/* The hypervisor's signature as the processor tells it, "KVMKVMKVM" or "TCGTCGTCGTCG" for instance; "" on bare metal,
 * and where processors have no such instruction. */
void ivs_hypervisor(char name[13]);

#endif
