/* native.csrc.c: the C side of the one cffi door; what passes through it is declared in native.cdef.h. */
#include "calls.h"
#include "crc32c.h"
#include "fault.h"
#include "held.h"
#include "map.h"
#include "mbuf_calls.h"
#include "segment.h"
#include "table.h"
