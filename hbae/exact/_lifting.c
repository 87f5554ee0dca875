/* SPDX-License-Identifier: MIT
 *
 * One lifting pass of the CDF 9/7 wavelet, in place: the operations of hbae/exact/wavelet.py, each on its own and in the
 * same order, so that every bit is the same. Compile with -ffp-contract=off and without any fast-math option.
 */
#include "../_kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_AXES 8
/* Lines that are lifted together, and the room of one with the places at its edges. */
#define LINES 8
#define ROOM(N) ((N) + 8)

static const double ALPHA = -1.586134342059924, BETA = -0.052980118572961, GAMMA = 0.882911075530934,
                    DELTA = 0.443506852043971, SCALE = 1.149604398860241;

#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE static inline
#endif

/* y[i] += c * (a[i] + b[i]) for n values, each array with the same stride. */
ALWAYS_INLINE void add_to(double *restrict y, const double *a, const double *b, double c, Py_ssize_t n, Py_ssize_t s) {
    if (s == 1)
        for (Py_ssize_t i = 0; i < n; i++) y[i] += c * (a[i] + b[i]);
    else
        for (Py_ssize_t i = 0; i < n * s; i += s) y[i] += c * (a[i] + b[i]);
}

ALWAYS_INLINE void subtract_from(double *restrict y, const double *a, const double *b, double c, Py_ssize_t n, Py_ssize_t s) {
    if (s == 1)
        for (Py_ssize_t i = 0; i < n; i++) y[i] -= c * (a[i] + b[i]);
    else
        for (Py_ssize_t i = 0; i < n * s; i += s) y[i] -= c * (a[i] + b[i]);
}

ALWAYS_INLINE void multiply(double *y, Py_ssize_t n, Py_ssize_t s) {
    if (s == 1)
        for (Py_ssize_t i = 0; i < n; i++) y[i] *= SCALE;
    else
        for (Py_ssize_t i = 0; i < n * s; i += s) y[i] *= SCALE;
}

ALWAYS_INLINE void divide(double *y, Py_ssize_t n, Py_ssize_t s) {
    if (s == 1)
        for (Py_ssize_t i = 0; i < n; i++) y[i] /= SCALE;
    else
        for (Py_ssize_t i = 0; i < n * s; i += s) y[i] /= SCALE;
}

/* The same for rows, each for the vector unit at hand. */
FOR_ANY_UNIT static void add_row(double *y, const double *a, const double *b, double c, Py_ssize_t n, Py_ssize_t s) {
    add_to(y, a, b, c, n, s);
}

FOR_ANY_UNIT static void subtract_row(double *y, const double *a, const double *b, double c, Py_ssize_t n, Py_ssize_t s) {
    subtract_from(y, a, b, c, n, s);
}

FOR_ANY_UNIT static void multiply_row(double *y, Py_ssize_t n, Py_ssize_t s) { multiply(y, n, s); }

FOR_ANY_UNIT static void divide_row(double *y, Py_ssize_t n, Py_ssize_t s) { divide(y, n, s); }

typedef void (*lifter)(double *, const double *, const double *, double, Py_ssize_t, Py_ssize_t);
typedef void (*scaler)(double *, Py_ssize_t, Py_ssize_t);

/* Rows x + k * e of `n` values with stride s, for k from 0 to `rows`, mirrored at both ends. */
typedef struct {
    double *x;
    Py_ssize_t rows, e, n, s;
} Rows;

/* Lift row k, if there is one, by its neighbours. */
static void lift_row(const Rows *r, Py_ssize_t k, double c, lifter f) {
    if (k < 0 || k >= r->rows) return;
    Py_ssize_t before = k ? k - 1 : 1, after = k + 1 < r->rows ? k + 1 : k - 1;
    f(r->x + k * r->e, r->x + before * r->e, r->x + after * r->e, c, r->n, r->s);
}

static void scale_row(const Rows *r, Py_ssize_t k, scaler f) {
    if (k >= 0 && k < r->rows) f(r->x + k * r->e, r->n, r->s);
}

/* All steps in one sweep, each as soon as the rows that it needs are done: what is at work stays in the cache. */
static void forward_rows(const Rows *r) {
    for (Py_ssize_t k = 0; k - 3 < r->rows; k += 2) {
        lift_row(r, k + 1, ALPHA, add_row);
        lift_row(r, k, BETA, add_row);
        lift_row(r, k - 1, GAMMA, add_row);
        lift_row(r, k - 2, DELTA, add_row);
        scale_row(r, k - 2, multiply_row);
        scale_row(r, k - 3, divide_row);
    }
}

static void inverse_rows(const Rows *r) {
    for (Py_ssize_t k = 0; k - 3 < r->rows; k += 2) {
        scale_row(r, k, divide_row);
        scale_row(r, k + 1, multiply_row);
        lift_row(r, k, DELTA, subtract_row);
        lift_row(r, k - 1, GAMMA, subtract_row);
        lift_row(r, k - 2, BETA, subtract_row);
        lift_row(r, k - 3, ALPHA, subtract_row);
    }
}

/* Even and odd values of a line, apart and together again; without gaps between them compilers shuffle vectors. */
ALWAYS_INLINE void part(double *restrict even, double *restrict odd, const double *restrict x, Py_ssize_t pairs, Py_ssize_t s) {
    if (s == 1)
        for (Py_ssize_t i = 0; i < pairs; i++) {
            even[i] = x[2 * i];
            odd[i] = x[2 * i + 1];
        }
    else
        for (Py_ssize_t i = 0; i < pairs; i++) {
            even[i] = x[2 * i * s];
            odd[i] = x[(2 * i + 1) * s];
        }
}

ALWAYS_INLINE void weave(double *restrict x, const double *restrict even, const double *restrict odd, Py_ssize_t pairs, Py_ssize_t s) {
    if (s == 1)
        for (Py_ssize_t i = 0; i < pairs; i++) {
            x[2 * i] = even[i];
            x[2 * i + 1] = odd[i];
        }
    else
        for (Py_ssize_t i = 0; i < pairs; i++) {
            x[2 * i * s] = even[i];
            x[(2 * i + 1) * s] = odd[i];
        }
}

/* Lines along the last axis, even and odd values of each side by side in `work` with a place before and after each. Each step is
   done for all of them before the next one: what was just stored cannot be loaded at once by vectors that begin elsewhere. */
FOR_ANY_UNIT static void lift_lines(double *x, Py_ssize_t lines, Py_ssize_t gap, Py_ssize_t n, Py_ssize_t s, int inverse, double *work) {
    Py_ssize_t evens = (n + 1) / 2, odds = n / 2;
    double *even[LINES], *odd[LINES];
#define EACH for (Py_ssize_t l = 0; l < lines; l++)
#define EDGES_OF_EVEN if (evens == odds) even[l][evens] = even[l][evens - 1]
#define EDGES_OF_ODD odd[l][-1] = odd[l][0], odd[l][odds] = odd[l][odds - 1]
    EACH {
        even[l] = work + l * ROOM(n) + 1, odd[l] = even[l] + evens + 2;
        part(even[l], odd[l], x + l * gap, odds, s);
        if (evens > odds) even[l][odds] = x[l * gap + 2 * odds * s];
    }
    if (inverse) {
        EACH {
            divide(even[l], evens, 1);
            multiply(odd[l], odds, 1);
            EDGES_OF_ODD;
        }
        EACH {
            subtract_from(even[l], odd[l] - 1, odd[l], DELTA, evens, 1);
            EDGES_OF_EVEN;
        }
        EACH {
            subtract_from(odd[l], even[l], even[l] + 1, GAMMA, odds, 1);
            EDGES_OF_ODD;
        }
        EACH {
            subtract_from(even[l], odd[l] - 1, odd[l], BETA, evens, 1);
            EDGES_OF_EVEN;
        }
        EACH subtract_from(odd[l], even[l], even[l] + 1, ALPHA, odds, 1);
    } else {
        EACH {
            EDGES_OF_EVEN;
            add_to(odd[l], even[l], even[l] + 1, ALPHA, odds, 1);
            EDGES_OF_ODD;
        }
        EACH {
            add_to(even[l], odd[l] - 1, odd[l], BETA, evens, 1);
            EDGES_OF_EVEN;
        }
        EACH {
            add_to(odd[l], even[l], even[l] + 1, GAMMA, odds, 1);
            EDGES_OF_ODD;
        }
        EACH add_to(even[l], odd[l] - 1, odd[l], DELTA, evens, 1);
        EACH {
            multiply(even[l], evens, 1);
            divide(odd[l], odds, 1);
        }
    }
    EACH {
        weave(x + l * gap, even[l], odd[l], odds, s);
        if (evens > odds) x[l * gap + 2 * odds * s] = even[l][odds];
    }
#undef EACH
#undef EDGES_OF_EVEN
#undef EDGES_OF_ODD
}

/* Walk over all axes but `axis` and the last one; along the last one some lines at a time. */
static void walk(double *x, int rank, const Py_ssize_t *counts, const Py_ssize_t *steps, int axis, int inverse, int at,
                 double *work) {
    int last = rank - 1;
    if (axis == last && at >= last - 1) {
        Py_ssize_t lines = at < last ? counts[at] : 1, gap = at < last ? steps[at] : 0;
        for (Py_ssize_t l = 0; l < lines; l += LINES)
            lift_lines(x + l * gap, lines - l < LINES ? lines - l : LINES, gap, counts[last], steps[last], inverse, work);
        return;
    }
    if (at == last) {
        Rows r = {x, counts[axis], steps[axis], counts[at], steps[at]};
        (inverse ? inverse_rows : forward_rows)(&r);
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
    /* Along the last axis some lines are lifted together; a line may be as long as a chunk. */
    Py_ssize_t lines = good && rank > 1 && axis == rank - 1 ? counts[rank - 2] : 1;
    size_t room = good && axis == rank - 1 ? (size_t)((lines < LINES ? lines : LINES) * ROOM(counts[rank - 1])) : 1;
    double *work = good ? malloc(room * sizeof(double)) : NULL;
    if (work) {
        Py_BEGIN_ALLOW_THREADS;
        walk(grid.buf, (int)rank, counts, steps, axis, inverse, 0, work);
        Py_END_ALLOW_THREADS;
        free(work);
    } else if (good)
        PyErr_NoMemory();
    else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "lift: shape, strides, axis and buffer do not fit");
    PyBuffer_Release(&grid);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* The largest magnitude; infinite for what is not a number. */
FOR_ANY_UNIT static double round_all(double *x, Py_ssize_t n, double factor) {
    double largest[4] = {0, 0, 0, 0};
    int odd = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        double v = rint(x[i] * factor), size = fabs(v);
        x[i] = v;
        odd |= v != v;
        largest[i & 3] = size > largest[i & 3] ? size : largest[i & 3];
    }
    for (int k = 1; k < 4; k++) largest[0] = largest[k] > largest[0] ? largest[k] : largest[0];
    return odd ? INFINITY : largest[0];
}

PyDoc_STRVAR(scale_doc,
             "scale_and_round(values, factor)\n--\n\n"
             "Multiply float64 in place and round half to even; give the largest magnitude (infinite with a NaN).");

static PyObject *scale_and_round(PyObject *self, PyObject *args) {
    Py_buffer values;
    double factor, largest;
    if (!PyArg_ParseTuple(args, "w*d", &values, &factor)) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    largest = round_all(values.buf, values.len / (Py_ssize_t)sizeof(double), factor);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&values);
    return PyFloat_FromDouble(largest);
}

static PyMethodDef methods[] = {{"lift", lift, METH_VARARGS, lift_doc},
                                {"scale_and_round", scale_and_round, METH_VARARGS, scale_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_lifting", "Compiled lifting.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__lifting(void) { return PyModule_Create(&module); }
