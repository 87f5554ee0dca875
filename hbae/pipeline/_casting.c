/* SPDX-License-Identifier: MIT
 *
 * The last step of a value: step size, offset, limits, stored type, in one pass. The operations of hbae/pipeline/casting.py, each on
 * its own and in the same order, so that every bit is the same. Compile with -ffp-contract=off and without any fast-math option.
 */
#include "../_kernel.h"

/* What is not a number stays so; zeros lose their sign. */
static inline double finished(double x, double scale, double offset, double low, double high) {
    x *= scale;
    x += offset;
    x = x < low ? low : x;
    x = x > high ? high : x;
    return x + 0.0;
}

FOR_ANY_UNIT static void row_of_floats(const double *t, const double *p, Py_ssize_t n, float *out) {
    for (Py_ssize_t i = 0; i < n; i++) out[i] = (float)finished(t[i], p[0], p[1], p[2], p[3]);
}

FOR_ANY_UNIT static void row_of_doubles(const double *t, const double *p, Py_ssize_t n, double *out) {
    for (Py_ssize_t i = 0; i < n; i++) out[i] = finished(t[i], p[0], p[1], p[2], p[3]);
}

PyDoc_STRVAR(finish_doc,
             "finish(t, each, out, begin, single)\n--\n\n"
             "Write values of some columns of (V, columns), from one on.\n\n"
             "`t`: float64 (V, n). `each`: float64 (V, 4): scale, offset, lowest and highest value. `out`: float32 (`single`) or\n"
             "float64 (V, columns).");

static PyObject *finish(PyObject *self, PyObject *args) {
    Py_buffer t, each, out;
    Py_ssize_t begin;
    int single;
    if (!PyArg_ParseTuple(args, "y*y*w*np", &t, &each, &out, &begin, &single)) return NULL;
    Py_ssize_t rows = each.len / 32, size = single ? 4 : 8;
    int good = rows >= 1 && each.len == rows * 32 && t.len % (8 * rows) == 0 && out.len % (size * rows) == 0;
    Py_ssize_t n = good ? t.len / 8 / rows : 0, columns = good ? out.len / size / rows : 0;
    good = good && begin >= 0 && begin <= columns && n <= columns - begin;
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t v = 0; v < rows; v++) {
            const double *from = (const double *)t.buf + v * n, *p = (const double *)each.buf + 4 * v;
            Py_ssize_t at = v * columns + begin;
            if (single)
                row_of_floats(from, p, n, (float *)out.buf + at);
            else
                row_of_doubles(from, p, n, (double *)out.buf + at);
        }
        Py_END_ALLOW_THREADS;
    } else
        PyErr_SetString(PyExc_ValueError, "finish: buffers do not fit");
    PyBuffer_Release(&t);
    PyBuffer_Release(&each);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"finish", finish, METH_VARARGS, finish_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_casting", "Compiled casts.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__casting(void) { return PyModule_Create(&module); }
