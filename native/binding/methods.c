/* SPDX-License-Identifier: BSD-3-Clause */
/* methods.c: eal._methods, the base classes of Ring and Burst with the methods that are called for every message or
 * burst.
 *
 * A Python method that calls C through cffi takes 150 ns, one of these 30 to 50. A method parses its arguments, calls
 * the core (ring_mempool_calls.h) and builds a result; on failure it calls a function of the Python class, which
 * raises.
 *
 * The GIL is kept if an operation cannot have to wait and copies little, because releasing it would take longer. A call
 * without the GIL holds references to what it uses: another thread may close the ring, which gives the object another
 * handle, one that refuses every operation. */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "ring_mempool_calls.h"

#define KEEPS_GIL_BYTES 65536u /* a copy of this length takes some microseconds */

/* State of both classes: a ring's handle, and the memory of a call. */
typedef struct {
    PyObject_HEAD
    struct ivs_ring *ring; /* never NULL */
    PyObject *keep;        /* keeps the handle and its pages alive */
    PyObject *refusal;     /* the class's function that raises for (self, argument, errno); NULL before _hold */
    PyObject *spare;       /* Ring: bytes for the next dequeue, which no other code has seen */
    Py_buffer array;       /* Burst: its array */
    uint32_t n;            /* Burst: elements in it */
} Held;

/* An operation on an ST side that this handle used last never waits (ivs_ring_acquire_end). */
static bool may_wait(struct ivs_ring *r, enum ivs_ring_role role)
{
    const struct ivs_ring_side *side = ivs_ring_side(r, role);
    uint64_t gate = atomic_load_explicit(&side->state_word, memory_order_relaxed);
    if (gate != (uint64_t)r->elem_size + IVS_SYNC_ST)
        return true;
    return atomic_load_explicit(&ivs_ring_own(r, role)->head, memory_order_relaxed) != (uint32_t)side->cached;
}

static int move(struct ivs_ring *r, enum ivs_ring_role role, void *objects, uint32_t n)
{
    return role == IVS_PRODUCER ? ivs_call_enqueue_burst(r, objects, n) : ivs_call_dequeue_burst(r, objects, n);
}

/* One operation on up to `n` elements. Returns as ring.h. If there was nothing to do, the GIL is released too: a
 * polling thread may be waiting for another thread of this process. */
static int call(Held *h, enum ivs_ring_role role, void *objects, uint32_t n)
{
    struct ivs_ring *r = h->ring;
    bool keeps = !may_wait(r, role) && (uint64_t)n * r->elem_size <= KEEPS_GIL_BYTES;
    int result = keeps ? move(r, role, objects, n) : 0;

    if (keeps && result != 0)
        return result;
    PyObject *keep = Py_NewRef(h->keep);
    Py_BEGIN_ALLOW_THREADS
    if (!keeps)
        result = move(r, role, objects, n);
    Py_END_ALLOW_THREADS
    Py_DECREF(keep);
    return result;
}

/* Let the Python class raise the exception of `code`. */
static PyObject *refused(PyObject *self, PyObject *argument, int code)
{
    Held *h = (Held *)self;

    PyErr_Clear();
    if (h->refusal == NULL)
        return PyErr_Format(PyExc_RuntimeError, "this object was not attached to a ring");
    PyObject *refusal = Py_NewRef(h->refusal);
    Py_XDECREF(PyObject_CallFunction(refusal, "OOi", self, argument, code));
    Py_DECREF(refusal);
    return NULL;
}

/* ---- Ring: one element ------------------------------------------------------------------------------------- */

static bool holds_numbers(const Held *h)
{
    return h->ring->elem_size == 4 || h->ring->elem_size == 8;
}

static PyObject *ring_enqueue_number(Held *h, PyObject *value)
{
    PyObject *index = PyNumber_Index(value); /* also numpy integers of any width */
    if (index == NULL)
        return NULL;
    uint64_t number = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (PyErr_Occurred() || (h->ring->elem_size == 4 && number > UINT32_MAX))
        return refused((PyObject *)h, value, -ERANGE);
    int result = call(h, IVS_PRODUCER, &number, 1);
    return result >= 0 ? PyBool_FromLong(result) : refused((PyObject *)h, value, result);
}

static PyObject *ring_enqueue(PyObject *self, PyObject *value)
{
    Held *h = (Held *)self;
    Py_buffer view;

    if (holds_numbers(h) && PyIndex_Check(value))
        return ring_enqueue_number(h, value);
    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) != 0)
        return refused(self, value, -EINVAL);
    int result = -EINVAL;
    if (view.len == (Py_ssize_t)h->ring->elem_size)
        result = call(h, IVS_PRODUCER, view.buf, 1);
    PyBuffer_Release(&view);
    return result >= 0 ? PyBool_FromLong(result) : refused(self, value, result);
}

static PyObject *ring_dequeue_bytes(Held *h)
{
    PyObject *element = h->spare;
    h->spare = NULL; /* another thread in between allocates its own */
    if (element == NULL)
        element = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)h->ring->elem_size);
    if (element == NULL)
        return NULL;
    int result = call(h, IVS_CONSUMER, PyBytes_AsString(element), 1);
    if (result == 1)
        return element;
    Py_XDECREF(h->spare);
    h->spare = element;
    return result == 0 ? Py_NewRef(Py_None) : refused((PyObject *)h, Py_None, result);
}

static PyObject *ring_dequeue(PyObject *self, PyObject *unused)
{
    Held *h = (Held *)self;
    uint64_t number = 0;

    (void)unused;
    if (!holds_numbers(h))
        return ring_dequeue_bytes(h);
    int result = call(h, IVS_CONSUMER, &number, 1);
    if (result == 1)
        return PyLong_FromUnsignedLongLong(number);
    return result == 0 ? Py_NewRef(Py_None) : refused(self, Py_None, result);
}

/* ---- Burst: its array -------------------------------------------------------------------------------------- */

/* The arguments of enqueue(n, start=0), borrowed. */
static bool burst_arguments(PyObject *const *args, Py_ssize_t n_args, PyObject *names, PyObject *found[2])
{
    Py_ssize_t n_names = names != NULL ? PyTuple_Size(names) : 0;
    bool fits = n_args <= 2;

    for (Py_ssize_t i = 0; fits && i < n_args + n_names; i++) {
        PyObject *name = i < n_args ? NULL : PyTuple_GetItem(names, i - n_args);
        Py_ssize_t which = name == NULL ? i : PyUnicode_CompareWithASCIIString(name, "n") != 0;
        fits = found[which] == NULL && (name == NULL || which == 0 || !PyUnicode_CompareWithASCIIString(name, "start"));
        found[which] = args[i];
    }
    if (!fits || found[0] == NULL)
        PyErr_SetString(PyExc_TypeError, "enqueue takes the arguments (n, start=0)");
    return fits && found[0] != NULL;
}

static PyObject *burst_enqueue(PyObject *self, PyObject *const *args, Py_ssize_t n_args, PyObject *names)
{
    Held *h = (Held *)self;
    PyObject *found[2] = {NULL, NULL};

    if (!burst_arguments(args, n_args, names, found))
        return NULL;
    Py_ssize_t n = PyNumber_AsSsize_t(found[0], NULL); /* out-of-range values become the largest one */
    Py_ssize_t start = found[1] != NULL ? PyNumber_AsSsize_t(found[1], NULL) : 0;
    if ((n == -1 || start == -1) && PyErr_Occurred())
        return NULL;
    int result = -ERANGE;
    if (n >= 0 && start >= 0 && start <= (Py_ssize_t)h->n && n <= (Py_ssize_t)h->n - start) {
        unsigned char *first = (unsigned char *)h->array.buf + (size_t)start * h->ring->elem_size;
        result = call(h, IVS_PRODUCER, first, (uint32_t)n);
    }
    if (result >= 0)
        return PyLong_FromLong(result);
    PyObject *range = Py_BuildValue("(nn)", n, start);
    if (range != NULL) {
        refused(self, range, result);
        Py_DECREF(range);
    }
    return NULL;
}

static PyObject *burst_dequeue(PyObject *self, PyObject *unused)
{
    Held *h = (Held *)self;
    int result = call(h, IVS_CONSUMER, h->array.buf, h->n);

    (void)unused;
    return result >= 0 ? PyLong_FromLong(result) : refused(self, Py_None, result);
}

/* ---- both: the handle -------------------------------------------------------------------------------------------- */

/* The handle of an object before _hold: every operation on it is refused. */
static struct ivs_ring closed;

static PyObject *held_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate(type, 0);

    (void)args, (void)names; /* for the Python class's __init__ */
    if (self != NULL) {
        ((Held *)self)->ring = &closed;
        ((Held *)self)->keep = Py_NewRef(Py_None);
    }
    return self;
}

static PyObject *held_hold(PyObject *self, PyObject *args)
{
    Held *h = (Held *)self;
    unsigned long long handle;
    PyObject *keep, *refusal, *array = NULL, *old_keep = h->keep, *old_refusal = h->refusal, *spare = h->spare;

    if (!PyArg_ParseTuple(args, "KOO|O", &handle, &keep, &refusal, &array))
        return NULL;
    h->ring = (struct ivs_ring *)(uintptr_t)handle;
    h->keep = Py_NewRef(keep);
    h->refusal = Py_NewRef(refusal);
    h->spare = NULL;
    Py_DECREF(old_keep); /* not earlier: it may run Python code */
    Py_XDECREF(old_refusal);
    Py_XDECREF(spare);
    if (array == NULL)
        return Py_NewRef(Py_None);
    h->n = 0;
    PyBuffer_Release(&h->array);
    if (PyObject_GetBuffer(array, &h->array, PyBUF_WRITABLE) != 0)
        return NULL;
    h->n = h->ring->elem_size != 0 ? (uint32_t)((size_t)h->array.len / h->ring->elem_size) : 0;
    return Py_NewRef(Py_None);
}

static void held_dealloc(PyObject *self)
{
    Held *h = (Held *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyBuffer_Release(&h->array);
    Py_XDECREF(h->keep);
    Py_XDECREF(h->refusal);
    Py_XDECREF(h->spare);
    release(self);
    Py_DECREF(type);
}

/* ---- the module -------------------------------------------------------------------------------------------- */

#define SIGNATURE(call, text) call "\n--\n\n" text

static PyMethodDef ring_methods[] = {
    {"enqueue", ring_enqueue, METH_O,
     SIGNATURE("enqueue($self, value, /)",
               "Enqueue one element; return False if the ring is full (DPDK: rte_ring_enqueue_elem).\n\n"
               "Raise Invalid for a value that is not an element.")},
    {"dequeue", ring_dequeue, METH_NOARGS,
     SIGNATURE("dequeue($self, /)",
               "Dequeue one element; return None if the ring is empty (DPDK: rte_ring_dequeue_elem).")},
    {"_hold", held_hold, METH_VARARGS, "_hold(handle, keep, refusal): use this ring from now on."},
    {0},
};

static PyMethodDef burst_methods[] = {
    {"enqueue", (PyCFunction)(void (*)(void))burst_enqueue, METH_FASTCALL | METH_KEYWORDS,
     SIGNATURE("enqueue($self, /, n, start=0)",
               "Enqueue up to `n` elements of `array` from index `start`; return the number.")},
    {"dequeue", burst_dequeue, METH_NOARGS,
     SIGNATURE("dequeue($self, /)",
               "Dequeue as many elements as there are to `array`, from index 0; return the number.")},
    {"_hold", held_hold, METH_VARARGS, "_hold(handle, keep, refusal, array=<present one>): use these from now on."},
    {0},
};

static int add_type(PyObject *module, const char *name, const char *path, PyMethodDef *methods)
{
    PyType_Slot slots[] = {
        {Py_tp_new, (void *)(uintptr_t)held_new},
        {Py_tp_dealloc, (void *)(uintptr_t)held_dealloc},
        {Py_tp_methods, methods},
        {0, NULL},
    };
    PyType_Spec spec = {path, sizeof(Held), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
    PyObject *type = PyType_FromSpec(&spec);
    int result = type != NULL ? PyModule_AddObjectRef(module, name, type) : -1;
    Py_XDECREF(type);
    return result;
}

static int fill(PyObject *module)
{
    ivs_ring_refuse(&closed, -ESHUTDOWN);
    if (add_type(module, "RingCalls", "eal._methods.RingCalls", ring_methods) != 0)
        return -1;
    return add_type(module, "BurstCalls", "eal._methods.BurstCalls", burst_methods);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)(uintptr_t)fill}, {0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_methods", .m_slots = module_slots};

PyMODINIT_FUNC PyInit__methods(void)
{
    return PyModuleDef_Init(&definition);
}
