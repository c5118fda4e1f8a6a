/* SPDX-License-Identifier: BSD-3-Clause */
/* native.csrc.c: the C side of the one cffi door; what passes through it is declared in native.cdef.h. */
#include "ring_mempool_calls.h"
#include "pvt/crc32c.h"
#include "fault.h"
#include "hotplug_poll.h"
#include "hypervisor.h"
#include "jit_calls.h"
#include "latency.h"
#include "mmap.h"
#include "mbuf_calls.h"
#include "segment.h"
#include "table.h"
