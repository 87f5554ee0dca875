/* SPDX-License-Identifier: MIT
 *
 * Slabs of integers, read one after the other with contexts from the two before: the steps of hbae/codecs/ints.py in one call.
 */
#include "_sets.h"

#include <stdlib.h>
#include <string.h>

/* Values whose sizes are written together. */
#define PIECE 64

typedef struct {
    Py_buffer q, live, classes, stream[STREAM_BUFFERS];
    Py_ssize_t rank, lengths[MOST_AXES], first, points, slabs;
    Reader reader;
    /* Sizes of the slab before and of the one before that, sums of neighbours and contexts, numbers of contexts, sorted values. */
    uint16_t *before, *earlier, *contexts;
    Py_ssize_t *room;
    int64_t *sorted;
} Ints;

/* Axes along which values have neighbours. */
static int is_near(const Ints *k, Py_ssize_t axis) { return axis >= k->first && k->lengths[axis] > 1; }

/* Weights of what tells of a value: its place in the slab before twice, in the one before that once, neighbours once. */
static Py_ssize_t weight_of(const Ints *k) {
    Py_ssize_t weight = 3;
    for (Py_ssize_t a = 0; a < k->rank; a++) weight += 2 * is_near(k, a);
    return weight;
}

static int read_shape(PyObject *shape, Ints *k) {
    k->rank = PyTuple_Check(shape) ? PyTuple_Size(shape) : -1;
    if (k->rank < 0 || k->rank > MOST_AXES || !read_tuple(shape, k->rank, k->lengths)) return 0;
    k->points = 1, k->slabs = k->live.len;
    for (Py_ssize_t a = 0; a < k->rank; a++) {
        Py_ssize_t n = k->lengths[a];
        if (n < 1 || n > MOST || k->points > PY_SSIZE_T_MAX / 64 / n) return 0;
        k->points *= n;
    }
    return k->first >= 0 && k->slabs >= 1 && k->points <= PY_SSIZE_T_MAX / 64 / k->slabs &&
           k->q.len == 8 * k->points * k->slabs && k->classes.len >= 2 * (CLIP * weight_of(k) + 1);
}

static int make_room(Ints *k) {
    size_t n = (size_t)k->points;
    k->before = calloc(n, sizeof(uint16_t)), k->earlier = calloc(n, sizeof(uint16_t));
    k->contexts = malloc(n * sizeof(uint16_t)), k->sorted = malloc(n * sizeof(int64_t));
    k->room = malloc((size_t)(2 * k->reader.num + 1) * sizeof(Py_ssize_t));
    if (k->before && k->earlier && k->contexts && k->sorted && k->room) return 1;
    PyErr_NoMemory();
    return 0;
}

FOR_ANY_UNIT static void join_slabs(uint16_t *restrict sums, const uint16_t *before, const uint16_t *earlier, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) sums[i] = (uint16_t)(2 * before[i] + earlier[i]);
}

FOR_ANY_UNIT static void add_sizes(uint16_t *restrict sums, const uint16_t *sizes, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) sums[i] = (uint16_t)(sums[i] + sizes[i]);
}

/* Levels of a slab behind the first one. */
static void write_levels(Ints *k) {
    const uint16_t *p = k->before, *classes = k->classes.buf;
    uint16_t *sums = k->contexts;
    join_slabs(sums, p, k->earlier, k->points);
    Py_ssize_t step = k->points;
    for (Py_ssize_t a = 0; a < k->rank; a++) {
        Py_ssize_t n = k->lengths[a], box = step;
        step /= n;
        if (!is_near(k, a)) continue;
        for (Py_ssize_t at = 0; at < k->points; at += box) {
            add_sizes(sums + at + step, p + at, box - step);
            add_sizes(sums + at, p + at + step, box - step);
        }
    }
    for (Py_ssize_t i = 0; i < k->points; i++) sums[i] = (uint16_t)(classes[sums[i]] + 1);
}

/* Write magnitudes; gives whether all are sizes. */
FOR_ANY_UNIT static int write_magnitudes(uint16_t *restrict sizes, const int64_t *values, Py_ssize_t n) {
    uint64_t any = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        uint64_t u = values[i] < 0 ? -(uint64_t)values[i] : (uint64_t)values[i];
        any |= u;
        sizes[i] = (uint16_t)u;
    }
    return any < LINEAR;
}

static void write_sizes(uint16_t *sizes, const int64_t *values, Py_ssize_t n) {
    for (Py_ssize_t at = 0; at < n; at += PIECE) {
        Py_ssize_t end = at + PIECE < n ? at + PIECE : n;
        if (!write_magnitudes(sizes + at, values + at, end - at))
            for (Py_ssize_t i = at; i < end; i++) sizes[i] = size_of(values[i]);
    }
}

static int read_slabs(Ints *k) {
    int fault = FINE;
    for (Py_ssize_t s = 0; s < k->slabs && fault == FINE; s++) {
        int64_t *values = (int64_t *)k->q.buf + s * k->points;
        if (((const uint8_t *)k->live.buf)[s]) {
            if (s)
                write_levels(k);
            else
                memset(k->contexts, 0, (size_t)k->points * sizeof(uint16_t));
            fault = read_values(&k->reader, k->contexts, k->points, 0, k->room, k->sorted, values);
        }
        uint16_t *sizes = k->earlier;
        k->earlier = k->before, k->before = sizes;
        write_sizes(sizes, values, k->points);
    }
    return fault;
}

PyDoc_STRVAR(read_doc,
             "read(q, live, shape, first, classes, stream)\n--\n\n"
             "Read the slabs that are `live` (uint8, S); give what is wrong with the stream (0: nothing).\n\n"
             "`q`: int64 (S, *shape), zeros, written. `first`: first axis of a slab with neighbours along it. `classes`: uint16, of\n"
             "every weighted sum of sizes. `stream`: what `take` takes behind `narrow`.");

static PyObject *read_ints(PyObject *self, PyObject *args) {
    Ints k = {0};
    PyObject *shape, *stream;
    Py_buffer *b = k.stream;
    int fault = FINE;
    int fits = PyArg_ParseTuple(args, "w*y*Ony*O!", &k.q, &k.live, &shape, &k.first, &k.classes, &PyTuple_Type, &stream) &&
               PyArg_ParseTuple(stream, "y*y*y*y*y*y*w*w*", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7) &&
               read_shape(shape, &k) && reader_of(b, &k.reader);
    if (fits && make_room(&k)) {
        Py_BEGIN_ALLOW_THREADS;
        fault = read_slabs(&k);
        leave_stream(&k.reader, b);
        Py_END_ALLOW_THREADS;
    }
    if (!fits && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "read: shapes and buffers do not fit");
    void *rooms[] = {k.before, k.earlier, k.contexts, k.sorted, k.room};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) free(rooms[i]);
    PyBuffer_Release(&k.q);
    PyBuffer_Release(&k.live);
    PyBuffer_Release(&k.classes);
    for (int i = 0; i < STREAM_BUFFERS; i++) PyBuffer_Release(b + i);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(fault);
}

static PyMethodDef methods[] = {{"read", read_ints, METH_VARARGS, read_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_ints", "Compiled slabs of integers.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__ints(void) { return PyModule_Create(&module); }
