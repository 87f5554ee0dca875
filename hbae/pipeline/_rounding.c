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

typedef struct {
    const double *values;
    uint16_t *classes, *first, *total;
    const uint16_t *class_of;
    int64_t *counts;
    Py_ssize_t rank, sizes[MOST_AXES], steps[MOST_AXES], done;
} Band;

/* Take the first rounding of a band out of the grid; or, with `put`, write its classes into it. */
static void walk(Band *b, Py_ssize_t axis, Py_ssize_t at, int put) {
    Py_ssize_t n = b->sizes[axis], step = b->steps[axis];
    if (axis < b->rank - 1) {
        for (Py_ssize_t i = 0; i < n; i++) walk(b, axis + 1, at + i * step, put);
        return;
    }
    uint16_t *first = b->first + b->done, *total = b->total + b->done;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (put) {
            uint16_t place = (uint16_t)(b->class_of[total[i]] * SYMBOLS);
            b->classes[at + i * step] = place;
            b->counts[place + (first[i] < SYMBOLS - 1 ? first[i] : SYMBOLS - 1)]++;
        } else {
            double size = fabs(b->values[at + i * step]) + FIRST;
            first[i] = size < TOP ? (uint16_t)size : TOP;
        }
    }
    b->done += n;
}

FOR_ANY_UNIT static void add(uint16_t *total, const uint16_t *first, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) total[i] = (uint16_t)(total[i] + first[i]);
}

/* Add the neighbours one step before and after along an axis. */
static void add_neighbours(Band *b, Py_ssize_t axis, Py_ssize_t points) {
    Py_ssize_t inner = 1, n = b->sizes[axis];
    for (Py_ssize_t a = axis + 1; a < b->rank; a++) inner *= b->sizes[a];
    for (Py_ssize_t at = 0; at < points; at += n * inner) {
        add(b->total + at + inner, b->first + at, (n - 1) * inner);
        add(b->total + at, b->first + at + inner, (n - 1) * inner);
    }
}

PyDoc_STRVAR(classify_doc,
             "classify(values, shape, starts, steps, axes, class_of, classes, counts)\n--\n\n"
             "Write 40 times the class of each coefficient of a band into `classes`, and count first roundings by class.\n\n"
             "`values`: float64 grid of one variable. `axes`: whether neighbours count along each. `class_of`: uint16, by\n"
             "their sum. `classes`: uint16, as the grid. `counts`: int64, added to.");

static PyObject *classify(PyObject *self, PyObject *args) {
    Py_buffer values, class_of, classes, counts;
    PyObject *lists[4];
    if (!PyArg_ParseTuple(args, "y*O!O!O!O!y*w*w*", &values, &PyTuple_Type, lists, &PyTuple_Type, lists + 1, &PyTuple_Type,
                          lists + 2, &PyTuple_Type, lists + 3, &class_of, &classes, &counts))
        return NULL;
    Band b = {values.buf, classes.buf, NULL, NULL, class_of.buf, counts.buf, PyTuple_Size(lists[0]), {0}, {0}, 0};
    Py_ssize_t all = 1, points = 1, at = 0, neighbours = 0;
    int counted[MOST_AXES], good = b.rank >= 1 && b.rank <= MOST_AXES;
    for (int k = 1; k < 4; k++) good = good && PyTuple_Size(lists[k]) == b.rank;
    for (Py_ssize_t a = b.rank - 1; good && a >= 0; a--) {
        Py_ssize_t number[4];
        for (int k = 0; k < 4; k++) number[k] = PyLong_AsSsize_t(PyTuple_GetItem(lists[k], a));
        good = !PyErr_Occurred() && number[0] >= 1 && number[1] >= 0 && number[1] < number[0] && number[2] >= 1 &&
               all <= PY_SSIZE_T_MAX / 8 / number[0];
        if (!good) break;
        b.sizes[a] = (number[0] - 1 - number[1]) / number[2] + 1;
        b.steps[a] = b.sizes[a] > 1 ? all * number[2] : 0;
        at += number[1] * all;
        all *= number[0];
        points *= b.sizes[a];
        counted[a] = number[3] != 0;
        neighbours += counted[a] ? 2 : 0;
    }
    good = good && values.len == all * 8 && classes.len == all * 2 && class_of.len == (TOP * neighbours + 1) * 2;
    for (Py_ssize_t i = 0; good && i <= TOP * neighbours; i++) good = (b.class_of[i] + 1) * SYMBOLS <= counts.len / 8;
    b.first = good ? malloc((size_t)points * 2) : NULL;
    b.total = b.first ? calloc((size_t)points, 2) : NULL;
    if (b.total) {
        Py_BEGIN_ALLOW_THREADS;
        walk(&b, 0, at, 0);
        for (Py_ssize_t a = 0; a < b.rank; a++)
            if (counted[a] && b.sizes[a] > 1) add_neighbours(&b, a, points);
        b.done = 0;
        walk(&b, 0, at, 1);
        Py_END_ALLOW_THREADS;
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "classify: shapes and buffers do not fit");
    free(b.first);
    free(b.total);
    PyBuffer_Release(&values);
    PyBuffer_Release(&class_of);
    PyBuffer_Release(&classes);
    PyBuffer_Release(&counts);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

FOR_ANY_UNIT static void round_all(double *values, const uint16_t *classes, const double *lowest, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        double size = fabs(values[i]), near = rint(size);
        double limit = lowest[classes[i] + (near < SYMBOLS - 1 ? (int)near : SYMBOLS - 1)];
        near -= size - near < limit ? 1.0 : 0.0;
        values[i] = copysign(near, values[i]) + 0.0;
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
