/* SPDX-License-Identifier: MIT
 *
 * Rounding by worth, one variable at a time: the operations of hbae/pipeline/rounding.py, so that the encoder chooses alike
 * with it and without.
 */
#include "../_kernel.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST_AXES 8
#define SYMBOLS 40
#define TOP 60
#define FIRST 0.4

/* A variable's grid, bands of it in turn, and room for the largest: first roundings, sums of those around. */
typedef struct {
    const double *values;
    uint16_t *classes, *first, *total;
    const uint16_t *class_of;
    int64_t *counts;
    Py_ssize_t rank, lengths[MOST_AXES], sizes[MOST_AXES], steps[MOST_AXES], at, points, done;
    int counted[MOST_AXES];
} Band;

FOR_ANY_UNIT static void first_of_all(uint16_t *first, const double *values, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        double size = fabs(values[i]) + FIRST;
        first[i] = (uint16_t)(int)(size < TOP ? size : TOP);
    }
}

/* First roundings of a row of a band. */
static void take_row(Band *b, Py_ssize_t at) {
    Py_ssize_t n = b->sizes[b->rank - 1], step = b->steps[b->rank - 1];
    uint16_t *first = b->first + b->done;
    const double *values = b->values + at;
    if (step == 1) {
        first_of_all(first, values, n);
        return;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        double size = fabs(values[i * step]) + FIRST;
        first[i] = (uint16_t)(int)(size < TOP ? size : TOP);
    }
}

/* Classes of a row of a band, and counts of its first roundings by class. */
static void put_row(Band *b, Py_ssize_t at) {
    Py_ssize_t n = b->sizes[b->rank - 1], step = b->steps[b->rank - 1], nothing = 0;
    const uint16_t *first = b->first + b->done, *total = b->total + b->done;
    uint16_t *classes = b->classes + at, quiet = (uint16_t)(b->class_of[0] * SYMBOLS);
    for (Py_ssize_t i = 0; i < n; i++) {
        /* Most of all: counted one by one, each would wait for the one before. */
        if (!(total[i] | first[i])) {
            classes[i * step] = quiet;
            nothing++;
            continue;
        }
        uint16_t place = (uint16_t)(b->class_of[total[i]] * SYMBOLS);
        classes[i * step] = place;
        b->counts[place + (first[i] < SYMBOLS - 1 ? first[i] : SYMBOLS - 1)]++;
    }
    b->counts[quiet] += nothing;
}

static void walk(Band *b, Py_ssize_t axis, Py_ssize_t at, void (*row)(Band *, Py_ssize_t)) {
    if (axis == b->rank - 1) {
        row(b, at);
        b->done += b->sizes[axis];
        return;
    }
    for (Py_ssize_t i = 0; i < b->sizes[axis]; i++) walk(b, axis + 1, at + i * b->steps[axis], row);
}

FOR_ANY_UNIT static void add(uint16_t *total, const uint16_t *first, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) total[i] = (uint16_t)(total[i] + first[i]);
}

/* Add the neighbours one step before and after along an axis. */
static void add_neighbours(Band *b, Py_ssize_t axis) {
    Py_ssize_t inner = 1, n = b->sizes[axis];
    for (Py_ssize_t a = axis + 1; a < b->rank; a++) inner *= b->sizes[a];
    for (Py_ssize_t at = 0; at < b->points; at += n * inner) {
        add(b->total + at + inner, b->first + at, (n - 1) * inner);
        add(b->total + at, b->first + at + inner, (n - 1) * inner);
    }
}

static void classify_band(Band *b) {
    b->done = 0;
    walk(b, 0, b->at, take_row);
    memset(b->total, 0, (size_t)b->points * sizeof(uint16_t));
    for (Py_ssize_t a = 0; a < b->rank; a++)
        if (b->counted[a] && b->sizes[a] > 1) add_neighbours(b, a);
    b->done = 0;
    walk(b, 0, b->at, put_row);
}

/* Lengths of the grid, whether neighbours count along each axis; gives its points, 0 where they do not fit. */
static Py_ssize_t read_grid(PyObject *shape, PyObject *axes, Band *b) {
    Py_ssize_t all = 1, counted[MOST_AXES];
    b->rank = PyTuple_Check(shape) ? PyTuple_Size(shape) : 0;
    if (b->rank < 1 || b->rank > MOST_AXES || !read_tuple(shape, b->rank, b->lengths) || !read_tuple(axes, b->rank, counted)) return 0;
    for (Py_ssize_t a = 0; a < b->rank; a++) {
        if (b->lengths[a] < 1 || all > PY_SSIZE_T_MAX / 8 / b->lengths[a]) return 0;
        all *= b->lengths[a];
        b->counted[a] = counted[a] != 0;
    }
    return all;
}

/* Where a band lies: its first index and step by axis. */
static int read_place(PyObject *place, Band *b) {
    PyObject *starts, *steps;
    Py_ssize_t from[MOST_AXES], step[MOST_AXES], all = 1;
    if (!PyTuple_Check(place) || !PyArg_ParseTuple(place, "OO", &starts, &steps) || !read_tuple(starts, b->rank, from) ||
        !read_tuple(steps, b->rank, step))
        return 0;
    b->at = 0, b->points = 1;
    for (Py_ssize_t a = b->rank - 1; a >= 0; a--) {
        if (from[a] < 0 || from[a] >= b->lengths[a] || step[a] < 1) return 0;
        b->sizes[a] = (b->lengths[a] - 1 - from[a]) / step[a] + 1;
        b->steps[a] = b->sizes[a] > 1 ? all * step[a] : 0;
        b->at += from[a] * all;
        b->points *= b->sizes[a];
        all *= b->lengths[a];
    }
    return 1;
}

PyDoc_STRVAR(classify_doc,
             "classify(values, shape, places, axes, class_of, classes, counts)\n--\n\n"
             "Write 40 times the class of each coefficient of some bands into `classes`, and count first roundings by class.\n\n"
             "`values`: float64 grid of one variable. `places`: of each band its first indices and steps. `axes`: whether\n"
             "neighbours count along each. `class_of`: uint16, by their sum. `classes`: uint16, as the grid. `counts`: int64,\n"
             "added to.");

static PyObject *classify(PyObject *self, PyObject *args) {
    Py_buffer values, class_of, classes, counts;
    PyObject *shape, *places, *axes;
    if (!PyArg_ParseTuple(args, "y*OO!Oy*w*w*", &values, &shape, &PyTuple_Type, &places, &axes, &class_of, &classes, &counts)) return NULL;
    Band b = {.values = values.buf, .classes = classes.buf, .class_of = class_of.buf, .counts = counts.buf};
    Py_ssize_t all = read_grid(shape, axes, &b), neighbours = 0;
    for (Py_ssize_t a = 0; all && a < b.rank; a++) neighbours += 2 * b.counted[a];
    int good = all && values.len == all * 8 && classes.len == all * 2 && class_of.len == (TOP * neighbours + 1) * 2;
    for (Py_ssize_t i = 0; good && i <= TOP * neighbours; i++) good = (b.class_of[i] + 1) * SYMBOLS <= counts.len / 8;
    b.first = good ? malloc((size_t)all * sizeof(uint16_t)) : NULL;
    b.total = b.first ? malloc((size_t)all * sizeof(uint16_t)) : NULL;
    if (good && !b.total) PyErr_NoMemory();
    good = good && b.total;
    for (Py_ssize_t i = 0; good && i < PyTuple_Size(places); i++) {
        good = read_place(PyTuple_GetItem(places, i), &b);
        if (!good) break;
        Py_BEGIN_ALLOW_THREADS;
        classify_band(&b);
        Py_END_ALLOW_THREADS;
    }
    if (!good && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "classify: shapes and buffers do not fit");
    free(b.first);
    free(b.total);
    PyBuffer_Release(&values);
    PyBuffer_Release(&class_of);
    PyBuffer_Release(&classes);
    PyBuffer_Release(&counts);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* Values that are looked at together: all of them become 0 where none is above a half (nothing is lower than 0). */
#define BLOCK 16

FOR_ANY_UNIT static int all_small(const double *values) {
    int small = 1;
    /* Not so for what is no number. */
    for (int i = 0; i < BLOCK; i++) small &= fabs(values[i]) <= 0.5;
    return small;
}

FOR_ANY_UNIT static void round_some(double *values, const uint16_t *classes, const double *lowest, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        double size = fabs(values[i]), near = rint(size);
        double limit = lowest[classes[i] + (near < SYMBOLS - 1 ? (int)near : SYMBOLS - 1)];
        near -= size - near < limit ? 1.0 : 0.0;
        values[i] = copysign(near, values[i]) + 0.0;
    }
}

static void round_all(double *values, const uint16_t *classes, const double *lowest, Py_ssize_t n) {
    for (Py_ssize_t at = 0; at < n; at += BLOCK) {
        Py_ssize_t count = n - at < BLOCK ? n - at : BLOCK;
        if (count == BLOCK && all_small(values + at))
            memset(values + at, 0, BLOCK * sizeof(double));
        else
            round_some(values + at, classes + at, lowest, count);
    }
}

PyDoc_STRVAR(settle_doc,
             "settle(values, classes, lowest)\n--\n\n"
             "Round float64 in place: to the nearest integer, or the next one towards zero where it lies further below the\n"
             "nearest one than `lowest` (float64, by 40 times the class plus magnitude) allows.");

static PyObject *settle(PyObject *self, PyObject *args) {
    Py_buffer values, classes, lowest;
    if (!PyArg_ParseTuple(args, "w*y*y*", &values, &classes, &lowest)) return NULL;
    Py_ssize_t n = values.len / 8, most = lowest.len / 8 - SYMBOLS;
    const uint16_t *class = classes.buf;
    int good = values.len == n * 8 && classes.len == n * 2;
    for (Py_ssize_t i = 0; good && i < n; i++) good = class[i] <= most;
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        round_all(values.buf, class, lowest.buf, n);
        Py_END_ALLOW_THREADS;
    } else
        PyErr_SetString(PyExc_ValueError, "settle: buffers do not fit");
    PyBuffer_Release(&values);
    PyBuffer_Release(&classes);
    PyBuffer_Release(&lowest);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"classify", classify, METH_VARARGS, classify_doc},
                                {"settle", settle, METH_VARARGS, settle_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_rounding", "Compiled rounding.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__rounding(void) { return PyModule_Create(&module); }
