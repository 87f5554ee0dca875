/* SPDX-License-Identifier: MIT
 *
 * Running sums of integers along an axis, in place, modulo their size: the same as the NumPy code in hbae/codecs/predict.py.
 */
#include "../_kernel.h"

#include <stdint.h>

/* Boxes of n rows of so many values, the rows behind `start` added up. */
typedef struct {
    Py_ssize_t boxes, n, row, start;
} Rows;

#define ADD_ROWS(type, name)                                                                        \
    FOR_ANY_UNIT static void name(type *values, const Rows *r) {                                    \
        for (Py_ssize_t b = 0; b < r->boxes; b++, values += r->n * r->row)                          \
            for (Py_ssize_t i = r->start + 1; i < r->n; i++) {                                      \
                type *to = values + i * r->row;                                                     \
                const type *from = to - r->row;                                                     \
                for (Py_ssize_t j = 0; j < r->row; j++) to[j] = (type)(to[j] + from[j]);            \
            }                                                                                       \
    }                                                                                               \
    static void name##_alone(type *values, const Rows *r) {                                         \
        for (Py_ssize_t b = 0; b < r->boxes; b++, values += r->n) {                                 \
            type sum = 0;                                                                           \
            for (Py_ssize_t i = r->start; i < r->n; i++) values[i] = sum = (type)(sum + values[i]); \
        }                                                                                           \
    }

ADD_ROWS(uint8_t, add_8)
ADD_ROWS(uint16_t, add_16)
ADD_ROWS(uint32_t, add_32)
ADD_ROWS(uint64_t, add_64)

#define ADD(type, name) (r.row == 1 ? name##_alone : name)((type *)values.buf, &r)

PyDoc_STRVAR(add_doc,
             "add_along(values, size, boxes, n, row, start)\n--\n\n"
             "Replace integers of `size` bytes, (boxes, n, row), by their running sums along n from `start` on.");

static PyObject *add_along(PyObject *self, PyObject *args) {
    Py_buffer values;
    Py_ssize_t size;
    Rows r;
    if (!PyArg_ParseTuple(args, "w*nnnnn", &values, &size, &r.boxes, &r.n, &r.row, &r.start)) return NULL;
    Py_ssize_t all = size == 1 || size == 2 || size == 4 || size == 8 ? values.len / size : -1;
    int fits = all >= 0 && values.len % size == 0 && r.boxes >= 1 && r.n >= 1 && r.row >= 1 && r.start >= 0 && r.start <= r.n && r.boxes <= all &&
               r.n <= all / r.boxes && r.row <= all / r.boxes / r.n && r.boxes * r.n * r.row == all;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS;
        if (size == 1)
            ADD(uint8_t, add_8);
        else if (size == 2)
            ADD(uint16_t, add_16);
        else if (size == 4)
            ADD(uint32_t, add_32);
        else
            ADD(uint64_t, add_64);
        Py_END_ALLOW_THREADS;
    } else
        PyErr_SetString(PyExc_ValueError, "add_along: shape and buffer do not fit");
    PyBuffer_Release(&values);
    if (!fits) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"add_along", add_along, METH_VARARGS, add_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_sums", "Compiled running sums.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__sums(void) { return PyModule_Create(&module); }
