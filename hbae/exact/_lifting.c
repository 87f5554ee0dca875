/* SPDX-License-Identifier: MIT
 *
 * One lifting pass of the CDF 9/7 wavelet, in place: the operations of hbae/exact/wavelet.py, each on its own and in the
 * same order, so that every bit is the same. Compile with -ffp-contract=off and without any fast-math option.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_AXES 8

static const double ALPHA = -1.586134342059924, BETA = -0.052980118572961, GAMMA = 0.882911075530934,
                    DELTA = 0.443506852043971, SCALE = 1.149604398860241;

/* Vector units of the machine at hand; elementwise operations round alike on all of them. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_ANY_UNIT __attribute__((target_clones("avx2", "default")))
#else
#define FOR_ANY_UNIT
#endif

/* y[i] += c * (a[i] + b[i]) for n values, each array with the same stride. */
FOR_ANY_UNIT static void add_lifted(double *y, const double *a, const double *b, double c, Py_ssize_t n, Py_ssize_t s) {
    if (s == 1)
        for (Py_ssize_t i = 0; i < n; i++) y[i] += c * (a[i] + b[i]);
    else
        for (Py_ssize_t i = 0; i < n * s; i += s) y[i] += c * (a[i] + b[i]);
}

FOR_ANY_UNIT static void subtract_lifted(double *y, const double *a, const double *b, double c, Py_ssize_t n,
                                         Py_ssize_t s) {
    if (s == 1)
        for (Py_ssize_t i = 0; i < n; i++) y[i] -= c * (a[i] + b[i]);
    else
        for (Py_ssize_t i = 0; i < n * s; i += s) y[i] -= c * (a[i] + b[i]);
}

FOR_ANY_UNIT static void multiply(double *y, Py_ssize_t n, Py_ssize_t s) {
    for (Py_ssize_t i = 0; i < n * s; i += s) y[i] *= SCALE;
}

FOR_ANY_UNIT static void divide(double *y, Py_ssize_t n, Py_ssize_t s) {
    for (Py_ssize_t i = 0; i < n * s; i += s) y[i] /= SCALE;
}

typedef void (*lifter)(double *, const double *, const double *, double, Py_ssize_t, Py_ssize_t);

/* Rows r[k] = x + k * e of `n` values with stride s; odd rows are lifted by even ones, or the reverse. */
static void lift_odd(double *x, Py_ssize_t rows, Py_ssize_t e, Py_ssize_t n, Py_ssize_t s, double c, lifter f) {
    for (Py_ssize_t k = 1; k < rows; k += 2)
        f(x + k * e, x + (k - 1) * e, x + (k + 1 < rows ? k + 1 : k - 1) * e, c, n, s);
}

static void lift_even(double *x, Py_ssize_t rows, Py_ssize_t e, Py_ssize_t n, Py_ssize_t s, double c, lifter f) {
    for (Py_ssize_t k = 0; k < rows; k += 2) {
        Py_ssize_t before = k ? k - 1 : 1, after = k + 1 < rows ? k + 1 : before;
        f(x + k * e, x + before * e, x + after * e, c, n, s);
    }
}

static void forward_rows(double *x, Py_ssize_t rows, Py_ssize_t e, Py_ssize_t n, Py_ssize_t s) {
    lift_odd(x, rows, e, n, s, ALPHA, add_lifted);
    lift_even(x, rows, e, n, s, BETA, add_lifted);
    lift_odd(x, rows, e, n, s, GAMMA, add_lifted);
    lift_even(x, rows, e, n, s, DELTA, add_lifted);
    for (Py_ssize_t k = 0; k < rows; k++) (k % 2 ? divide : multiply)(x + k * e, n, s);
}

static void inverse_rows(double *x, Py_ssize_t rows, Py_ssize_t e, Py_ssize_t n, Py_ssize_t s) {
    for (Py_ssize_t k = 0; k < rows; k++) (k % 2 ? multiply : divide)(x + k * e, n, s);
    lift_even(x, rows, e, n, s, DELTA, subtract_lifted);
    lift_odd(x, rows, e, n, s, GAMMA, subtract_lifted);
    lift_even(x, rows, e, n, s, BETA, subtract_lifted);
    lift_odd(x, rows, e, n, s, ALPHA, subtract_lifted);
}

/* A line along the last axis: even and odd values side by side in `work`, which has a place before and after each. */
static void lift_line(double *x, Py_ssize_t n, Py_ssize_t s, int inverse, double *work) {
    Py_ssize_t evens = (n + 1) / 2, odds = n / 2;
    double *even = work + 1, *odd = work + evens + 3;
    for (Py_ssize_t i = 0; i < odds; i++) {
        even[i] = x[2 * i * s];
        odd[i] = x[(2 * i + 1) * s];
    }
    if (evens > odds) even[odds] = x[2 * odds * s];
#define EDGES_OF_EVEN if (evens == odds) even[evens] = even[evens - 1]
#define EDGES_OF_ODD odd[-1] = odd[0], odd[odds] = odd[odds - 1]
    if (inverse) {
        divide(even, evens, 1);
        multiply(odd, odds, 1);
        EDGES_OF_ODD;
        subtract_lifted(even, odd - 1, odd, DELTA, evens, 1);
        EDGES_OF_EVEN;
        subtract_lifted(odd, even, even + 1, GAMMA, odds, 1);
        EDGES_OF_ODD;
        subtract_lifted(even, odd - 1, odd, BETA, evens, 1);
        EDGES_OF_EVEN;
        subtract_lifted(odd, even, even + 1, ALPHA, odds, 1);
    } else {
        EDGES_OF_EVEN;
        add_lifted(odd, even, even + 1, ALPHA, odds, 1);
        EDGES_OF_ODD;
        add_lifted(even, odd - 1, odd, BETA, evens, 1);
        EDGES_OF_EVEN;
        add_lifted(odd, even, even + 1, GAMMA, odds, 1);
        EDGES_OF_ODD;
        add_lifted(even, odd - 1, odd, DELTA, evens, 1);
        multiply(even, evens, 1);
        divide(odd, odds, 1);
    }
    for (Py_ssize_t i = 0; i < odds; i++) {
        x[2 * i * s] = even[i];
        x[(2 * i + 1) * s] = odd[i];
    }
    if (evens > odds) x[2 * odds * s] = even[odds];
}

/* Walk over all axes but `axis` and the last one. */
static void walk(double *x, int rank, const Py_ssize_t *counts, const Py_ssize_t *steps, int axis, int inverse, int at,
                 double *work) {
    if (at == rank - 1) {
        if (axis == at)
            lift_line(x, counts[at], steps[at], inverse, work);
        else
            (inverse ? inverse_rows : forward_rows)(x, counts[axis], steps[axis], counts[at], steps[at]);
        return;
    }
    Py_ssize_t n = at == axis ? 1 : counts[at];
    for (Py_ssize_t i = 0; i < n; i++) walk(x + i * steps[at], rank, counts, steps, axis, inverse, at + 1, work);
}

PyDoc_STRVAR(lift_doc,
             "lift(grid, shape, strides, axis, inverse)\n--\n\n"
             "Lift a grid of float64 in place along one axis of the lattice with those strides.");

static PyObject *lift(PyObject *self, PyObject *args) {
    Py_buffer grid;
    PyObject *shape, *strides;
    int axis, inverse;
    if (!PyArg_ParseTuple(args, "w*O!O!ip", &grid, &PyTuple_Type, &shape, &PyTuple_Type, &strides, &axis, &inverse))
        return NULL;
    Py_ssize_t rank = PyTuple_Size(shape), counts[MOST_AXES], steps[MOST_AXES], total = 1;
    int good = rank >= 1 && rank <= MOST_AXES && PyTuple_Size(strides) == rank && axis >= 0 && axis < rank;
    for (Py_ssize_t a = rank - 1; good && a >= 0; a--) {
        Py_ssize_t n = PyLong_AsSsize_t(PyTuple_GetItem(shape, a)), s = PyLong_AsSsize_t(PyTuple_GetItem(strides, a));
        good = n >= 1 && s >= 1 && total <= PY_SSIZE_T_MAX / 8 / n;
        if (good) {
            counts[a] = (n + s - 1) / s;
            steps[a] = total * s;
            total *= n;
        }
    }
    good = good && !PyErr_Occurred() && grid.len == total * (Py_ssize_t)sizeof(double) && counts[axis] >= 2;
    double *work = good ? malloc((size_t)(counts[rank - 1] + 8) * sizeof(double)) : NULL;
    if (work) {
        Py_BEGIN_ALLOW_THREADS;
        walk(grid.buf, (int)rank, counts, steps, axis, inverse, 0, work);
        Py_END_ALLOW_THREADS;
        free(work);
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "lift: shape, strides, axis and buffer do not fit");
    PyBuffer_Release(&grid);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

FOR_ANY_UNIT static int round_all(double *x, Py_ssize_t n, double factor, double limit) {
    int fine = 1;
    for (Py_ssize_t i = 0; i < n; i++) {
        double v = rint(x[i] * factor);
        x[i] = v;
        fine &= fabs(v) < limit;
    }
    return fine;
}

PyDoc_STRVAR(scale_doc,
             "scale_and_round(values, factor, limit)\n--\n\n"
             "Multiply float64 in place and round half to even; give whether all magnitudes are below the limit.");

static PyObject *scale_and_round(PyObject *self, PyObject *args) {
    Py_buffer values;
    double factor, limit;
    int fine;
    if (!PyArg_ParseTuple(args, "w*dd", &values, &factor, &limit)) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    fine = round_all(values.buf, values.len / (Py_ssize_t)sizeof(double), factor, limit);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&values);
    return PyBool_FromLong(fine);
}

static PyMethodDef methods[] = {{"lift", lift, METH_VARARGS, lift_doc},
                                {"scale_and_round", scale_and_round, METH_VARARGS, scale_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_lifting", "Compiled lifting.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__lifting(void) { return PyModule_Create(&module); }
