/* SPDX-License-Identifier: BSD-3-Clause */
/* native.csrc.c: the headers behind the cffi module eal._native; native.cdef.h declares its names. */
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
