/* SPDX-License-Identifier: MIT
 *
 * Lifting passes of the CDF 9/7 wavelet, in place: the operations of hbae/exact/wavelet.py, each on its own and, for each value, in
 * the same order, so that every bit is the same. Compile with -ffp-contract=off and without any fast-math option.
 */
#include "../_kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_AXES 8
/* Lines that are lifted together, and the room of one with the places at its edges. */
#define LINES 8
#define ROOM(N) ((N) + 8)
/* Values of a row that are lifted together where a grid is large, values that stay in the cache, passes of a grid. */
#define COLUMNS 256
#define CACHED (1 << 15)
#define MOST_PASSES 64

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

/* A pass along one axis of the lattice with those strides. */
typedef struct {
    Py_ssize_t axis, strides[MOST_AXES];
} Pass;

/* A box of a grid: places from one index to the next, how many. */
typedef struct {
    double *x;
    Py_ssize_t steps[MOST_AXES], counts[MOST_AXES];
    int rank;
} Box;

static void lift_box(const Box *box, const Pass *p, int inverse, double *work) {
    Py_ssize_t counts[MOST_AXES], steps[MOST_AXES];
    int rank = box->rank;
    for (int a = 0; a < rank; a++) {
        counts[a] = (box->counts[a] + p->strides[a] - 1) / p->strides[a];
        steps[a] = box->steps[a] * p->strides[a];
    }
    /* Rows that follow each other without a gap are one. */
    for (; p->axis < rank - 2 && steps[rank - 2] == counts[rank - 1] * steps[rank - 1]; rank--) {
        counts[rank - 2] *= counts[rank - 1];
        steps[rank - 2] = steps[rank - 1];
    }
    walk(box->x, rank, counts, steps, (int)p->axis, inverse, 0, work);
}

/* Indices of an axis that are lifted together where a box is cut: lines that are side by side stay together. */
static Py_ssize_t cut_of(const Box *box, int axis) { return axis == box->rank - 1 ? COLUMNS : axis == box->rank - 2 ? LINES : 1; }

/* The first axis from `axis` on that a box can be cut along in a pass; the rank where there is none. */
static int next_cut(const Box *box, const Pass *p, int axis) {
    while (axis < box->rank && (p->axis == axis || p->strides[axis] > 1 || box->counts[axis] <= cut_of(box, axis))) axis++;
    return axis;
}

/* How many passes can be made piece by piece, cut along `axis`. */
static Py_ssize_t count_passes(const Box *box, const Pass *passes, Py_ssize_t n, int axis) {
    Py_ssize_t i = 0;
    while (i < n && next_cut(box, passes + i, axis) == axis) i++;
    return i;
}

/* Make all passes; those in a row that leave an axis alone piece by piece along it, so that what is at work stays in the cache. */
static void lift_all(const Box *box, const Pass *passes, Py_ssize_t n, int inverse, double *work) {
    Py_ssize_t size = 1, many;
    for (int a = 0; a < box->rank; a++) size *= box->counts[a];
    for (Py_ssize_t i = 0; i < n; i += many) {
        int cut = box->rank;
        many = 1;
        for (int a = 0; a < box->rank && size > CACHED; a++) {
            Py_ssize_t found = count_passes(box, passes + i, n - i, a);
            if (found > (cut < box->rank ? many : 0)) cut = a, many = found;
        }
        if (cut == box->rank) {
            lift_box(box, passes + i, inverse, work);
            continue;
        }
        Box piece = *box;
        Py_ssize_t step = cut_of(box, cut);
        for (Py_ssize_t k = 0; k < box->counts[cut]; k += step) {
            piece.x = box->x + k * box->steps[cut];
            piece.counts[cut] = box->counts[cut] - k < step ? box->counts[cut] - k : step;
            lift_all(&piece, passes + i, many, inverse, work);
        }
    }
}

/* Read a grid's shape; gives its size, 0 where it does not fit. */
static Py_ssize_t read_shape(PyObject *shape, Box *box) {
    Py_ssize_t total = 1;
    box->rank = (int)PyTuple_Size(shape);
    if (box->rank < 1 || box->rank > MOST_AXES || !read_tuple(shape, box->rank, box->counts)) return 0;
    for (int a = box->rank - 1; a >= 0; a--) {
        Py_ssize_t n = box->counts[a];
        if (n < 1 || total > PY_SSIZE_T_MAX / 8 / n) return 0;
        box->steps[a] = total;
        total *= n;
    }
    return total;
}

static int read_pass(PyObject *one, const Box *box, Pass *p) {
    PyObject *strides;
    if (!PyTuple_Check(one) || !PyArg_ParseTuple(one, "nO", &p->axis, &strides) || !read_tuple(strides, box->rank, p->strides)) return 0;
    for (int a = 0; a < box->rank; a++)
        if (p->strides[a] < 1 || p->strides[a] > box->counts[a]) return 0;
    return p->axis >= 0 && p->axis < box->rank && p->strides[p->axis] < box->counts[p->axis];
}

PyDoc_STRVAR(lift_doc,
             "lift(grid, shape, passes, inverse)\n--\n\n"
             "Lift a grid of float64 in place: for each pass along one axis of the lattice with those strides.");

static PyObject *lift(PyObject *self, PyObject *args) {
    Py_buffer grid;
    PyObject *shape, *passes;
    Pass all[MOST_PASSES];
    Box box;
    int inverse;
    if (!PyArg_ParseTuple(args, "w*O!O!p", &grid, &PyTuple_Type, &shape, &PyTuple_Type, &passes, &inverse)) return NULL;
    Py_ssize_t total = read_shape(shape, &box), n = PyTuple_Size(passes), room = 1;
    int good = total && n <= MOST_PASSES && grid.len == total * (Py_ssize_t)sizeof(double);
    for (Py_ssize_t i = 0; good && i < n; i++) {
        good = read_pass(PyTuple_GetItem(passes, i), &box, all + i);
        /* Along the last axis some lines are lifted together; a line may be as long as a chunk. */
        if (good && all[i].axis == box.rank - 1) room = LINES * ROOM(box.counts[box.rank - 1]);
    }
    double *work = good ? malloc((size_t)room * sizeof(double)) : NULL;
    if (work) {
        box.x = grid.buf;
        Py_BEGIN_ALLOW_THREADS;
        lift_all(&box, all, n, inverse, work);
        Py_END_ALLOW_THREADS;
        free(work);
    } else if (good)
        PyErr_NoMemory();
    else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "lift: shape, passes and buffer do not fit");
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
