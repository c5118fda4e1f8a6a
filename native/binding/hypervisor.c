/* SPDX-License-Identifier: BSD-3-Clause */
/* hypervisor.c: reads the CPUID leaves that are reserved for hypervisors. */
#include "hypervisor.h"

#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

void ivs_hypervisor(char name[13])
{
    unsigned int a, b, c = 0, d, words[3];

    memset(name, 0, 13);
    /* Bit 31 of leaf 1's ecx: a hypervisor is present, and leaf 0x40000000 contains its signature. */
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 31))
        return;
    __cpuid(0x40000000, a, words[0], words[1], words[2]);
    memcpy(name, words, sizeof(words));
}
#else
void ivs_hypervisor(char name[13])
{
    memset(name, 0, 13);
}
#endif
