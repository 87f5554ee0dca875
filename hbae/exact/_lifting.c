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
/* Columns that are lifted together: those that lie side by side, and others; values of them that there is room for. */
#define NEAR 16
#define APART 8
#define ROOM ((Py_ssize_t)1 << 18)
/* Values of a row that stay together where a grid is cut, values that stay in the cache, passes of a grid. */
#define ROW 256
#define CACHED (1 << 15)
#define MOST_PASSES 64

static const double ALPHA = -1.586134342059924, BETA = -0.052980118572961, GAMMA = 0.882911075530934,
                    DELTA = 0.443506852043971, SCALE = 1.149604398860241;

#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
/* Some values side by side; an operation is that of each. */
typedef double Vector __attribute__((vector_size(32)));
#else
#define ALWAYS_INLINE static inline
typedef double Vector;
#endif
#define WIDTH ((Py_ssize_t)(sizeof(Vector) / sizeof(double)))

/* All steps for columns x, x + e, ... (`rows` of them, 2 or more, mirrored at both ends) in one sweep, from the even row k and the odd
   one after it: each step for the last row that has what it needs. `e0` is an even row before any step, `e1` after one, ... */
#define SWEEPS(TYPE, NAME)                                                                                         \
    ALWAYS_INLINE void forward_##NAME(double *x, Py_ssize_t rows, Py_ssize_t e) {                                  \
        TYPE e0, next, e1 = {0}, o1 = {0}, o2 = {0}, odd, even, lifted, done;                                      \
        memcpy(&next, x, sizeof(TYPE));                                                                            \
        for (Py_ssize_t k = 0; k < rows; k += 2) {                                                                 \
            e0 = next;                                                                                             \
            odd = o1;                                                                                              \
            if (k + 1 < rows) {                                                                                    \
                memcpy(&odd, x + (k + 1) * e, sizeof(TYPE));                                                       \
                if (k + 2 < rows) memcpy(&next, x + (k + 2) * e, sizeof(TYPE));                                    \
                odd += ALPHA * (e0 + next);                                                                        \
            }                                                                                                      \
            even = e0 + BETA * ((k ? o1 : odd) + odd);                                                             \
            if (k) {                                                                                               \
                lifted = o1 + GAMMA * (e1 + even);                                                                 \
                done = e1 + DELTA * ((k > 2 ? o2 : lifted) + lifted);                                              \
                done *= SCALE;                                                                                     \
                memcpy(x + (k - 2) * e, &done, sizeof(TYPE));                                                      \
                done = lifted / SCALE;                                                                             \
                memcpy(x + (k - 1) * e, &done, sizeof(TYPE));                                                      \
                o2 = lifted;                                                                                       \
            }                                                                                                      \
            e1 = even, o1 = odd;                                                                                   \
        }                                                                                                          \
        Py_ssize_t last = (rows - 1) / 2 * 2;                                                                      \
        lifted = o2;                                                                                               \
        if (last + 1 < rows) {                                                                                     \
            lifted = o1 + GAMMA * (e1 + e1);                                                                       \
            done = lifted / SCALE;                                                                                 \
            memcpy(x + (last + 1) * e, &done, sizeof(TYPE));                                                       \
        }                                                                                                          \
        done = e1 + DELTA * ((last ? o2 : lifted) + lifted);                                                       \
        done *= SCALE;                                                                                             \
        memcpy(x + last * e, &done, sizeof(TYPE));                                                                 \
    }                                                                                                              \
    ALWAYS_INLINE void inverse_##NAME(double *x, Py_ssize_t rows, Py_ssize_t e) {                                  \
        TYPE e1 = {0}, e2 = {0}, o0 = {0}, o1 = {0}, odd, even, lifted, flat, done;                                \
        for (Py_ssize_t k = 0; k < rows; k += 2) {                                                                 \
            memcpy(&even, x + k * e, sizeof(TYPE));                                                                \
            even /= SCALE;                                                                                         \
            odd = o0;                                                                                              \
            if (k + 1 < rows) {                                                                                    \
                memcpy(&odd, x + (k + 1) * e, sizeof(TYPE));                                                       \
                odd *= SCALE;                                                                                      \
            }                                                                                                      \
            even -= DELTA * ((k ? o0 : odd) + odd);                                                                \
            if (k) {                                                                                               \
                lifted = o0 - GAMMA * (e1 + even);                                                                 \
                flat = e1 - BETA * ((k > 2 ? o1 : lifted) + lifted);                                               \
                memcpy(x + (k - 2) * e, &flat, sizeof(TYPE));                                                      \
                if (k > 2) {                                                                                       \
                    done = o1 - ALPHA * (e2 + flat);                                                               \
                    memcpy(x + (k - 3) * e, &done, sizeof(TYPE));                                                  \
                }                                                                                                  \
                e2 = flat, o1 = lifted;                                                                            \
            }                                                                                                      \
            e1 = even, o0 = odd;                                                                                   \
        }                                                                                                          \
        Py_ssize_t last = (rows - 1) / 2 * 2;                                                                      \
        lifted = o1;                                                                                               \
        if (last + 1 < rows) lifted = o0 - GAMMA * (e1 + e1);                                                      \
        flat = e1 - BETA * ((last ? o1 : lifted) + lifted);                                                        \
        memcpy(x + last * e, &flat, sizeof(TYPE));                                                                 \
        if (last) {                                                                                                \
            done = o1 - ALPHA * (e2 + flat);                                                                       \
            memcpy(x + (last - 1) * e, &done, sizeof(TYPE));                                                       \
        }                                                                                                          \
        if (last + 1 < rows) {                                                                                     \
            done = lifted - ALPHA * (flat + flat);                                                                 \
            memcpy(x + (last + 1) * e, &done, sizeof(TYPE));                                                       \
        }                                                                                                          \
    }
SWEEPS(Vector, vector)
SWEEPS(double, double)

/* Lift columns, side by side in rows that are e apart. */
FOR_ANY_UNIT static void lift_columns(double *x, Py_ssize_t rows, Py_ssize_t e, Py_ssize_t columns, int inverse) {
    Py_ssize_t i = 0;
    for (; columns - i >= WIDTH; i += WIDTH)
        if (inverse)
            inverse_vector(x + i, rows, e);
        else
            forward_vector(x + i, rows, e);
    for (; i < columns; i++)
        if (inverse)
            inverse_double(x + i, rows, e);
        else
            forward_double(x + i, rows, e);
}

/* Move columns of `n` values with stride e, `gap` apart, to `work`, where they are side by side, or back. */
ALWAYS_INLINE void move_columns(double *restrict x, Py_ssize_t n, Py_ssize_t e, Py_ssize_t columns, Py_ssize_t gap, Py_ssize_t row,
                                int back, double *restrict work) {
    for (Py_ssize_t i = 0; i < n; i++)
        for (Py_ssize_t l = 0; l < columns; l++)
            if (back)
                x[l * gap + i * e] = work[i * row + l];
            else
                work[i * row + l] = x[l * gap + i * e];
}

/* The same, where compilers are told the strides that are most frequent. */
FOR_ANY_UNIT static void move_some(double *x, Py_ssize_t n, Py_ssize_t e, Py_ssize_t columns, Py_ssize_t gap, Py_ssize_t row, int back,
                                   double *work) {
    if (columns == NEAR && gap == 1 && back)
        move_columns(x, n, e, NEAR, 1, row, 1, work);
    else if (columns == NEAR && gap == 1)
        move_columns(x, n, e, NEAR, 1, row, 0, work);
    else if (columns == APART && e == 1 && back)
        move_columns(x, n, 1, APART, gap, row, 1, work);
    else if (columns == APART && e == 1)
        move_columns(x, n, 1, APART, gap, row, 0, work);
    else
        move_columns(x, n, e, columns, gap, row, back, work);
}

/* What is done at each place of a walk: passes along `axis`, of which each takes every so manyth of the lattice's indices. */
typedef struct {
    int rank, axis, inverse;
    const Py_ssize_t *counts, *steps, *ratios;
    Py_ssize_t passes;
    double *work;
} Lift;

/* How many of so many columns of n values are lifted at a time: no more than there is room for, and one at least. */
static Py_ssize_t at_a_time(Py_ssize_t columns, Py_ssize_t n, Py_ssize_t gap) {
    Py_ssize_t most = gap == 1 ? NEAR : APART, room = n < ROOM ? ROOM / n : 1;
    most = most < room ? most : room;
    return most < columns ? most : columns;
}

static void make_passes(const Lift *w, double *x, Py_ssize_t e, Py_ssize_t columns) {
    for (Py_ssize_t k = 0; k < w->passes; k++)
        lift_columns(x, (w->counts[w->axis] + w->ratios[k] - 1) / w->ratios[k], e * w->ratios[k], columns, w->inverse);
}

/* Lift columns that are `gap` apart, some at a time. They are moved together and back once, as caches do not like strides; short
   rows that lie side by side stay where they are. */
static void lift_side_by_side(const Lift *w, double *x, Py_ssize_t columns, Py_ssize_t gap) {
    Py_ssize_t n = w->counts[w->axis], e = w->steps[w->axis], row = at_a_time(columns, n, gap);
    if (gap == 1 && e <= NEAR) {
        make_passes(w, x, e, columns);
        return;
    }
    for (Py_ssize_t i = 0; i < columns; i += row) {
        Py_ssize_t some = columns - i < row ? columns - i : row;
        move_some(x + i * gap, n, e, some, gap, row, 0, w->work);
        make_passes(w, w->work, row, some);
        move_some(x + i * gap, n, e, some, gap, row, 1, w->work);
    }
}

/* Walk over all axes but `axis` and the last one of the others, along which columns are side by side. */
static void walk(const Lift *w, double *x, int at) {
    int across = w->axis == w->rank - 1 ? w->rank - 2 : w->rank - 1;
    if (at >= across) {
        lift_side_by_side(w, x, across < 0 ? 1 : w->counts[across], across < 0 ? 1 : w->steps[across]);
        return;
    }
    Py_ssize_t n = at == w->axis ? 1 : w->counts[at];
    for (Py_ssize_t i = 0; i < n; i++) walk(w, x + i * w->steps[at], at + 1);
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

/* Make those of the passes that follow each other along one axis of one lattice but for their strides along it; gives how many. */
static Py_ssize_t lift_box(const Box *box, const Pass *p, Py_ssize_t n, int inverse, double *work) {
    Py_ssize_t counts[MOST_AXES], steps[MOST_AXES], ratios[MOST_PASSES], finest = p->strides[p->axis], many = 1;
    for (; many < n && p[many].axis == p->axis; many++) {
        int alike = p[many].strides[p->axis] % finest == 0 || finest % p[many].strides[p->axis] == 0;
        for (int a = 0; a < box->rank; a++) alike = alike && (a == p->axis || p[many].strides[a] == p->strides[a]);
        if (!alike) break;
        finest = p[many].strides[p->axis] < finest ? p[many].strides[p->axis] : finest;
    }
    for (Py_ssize_t k = 0; k < many; k++) ratios[k] = p[k].strides[p->axis] / finest;
    int rank = box->rank;
    for (int a = 0; a < rank; a++) {
        Py_ssize_t stride = a == p->axis ? finest : p->strides[a];
        counts[a] = (box->counts[a] + stride - 1) / stride;
        steps[a] = box->steps[a] * stride;
    }
    /* Rows that follow each other without a gap are one. */
    for (; p->axis < rank - 2 && steps[rank - 2] == counts[rank - 1] * steps[rank - 1]; rank--) {
        counts[rank - 2] *= counts[rank - 1];
        steps[rank - 2] = steps[rank - 1];
    }
    Lift lift = {rank, (int)p->axis, inverse, counts, steps, ratios, many, work};
    walk(&lift, box->x, 0);
    return many;
}

/* Indices of an axis that are lifted together where a box is cut: lines that are side by side stay together. */
static Py_ssize_t cut_of(const Box *box, int axis) { return axis == box->rank - 1 ? ROW : axis == box->rank - 2 ? APART : 1; }

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
            many = lift_box(box, passes + i, n - i, inverse, work);
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
    Py_ssize_t total = read_shape(shape, &box), n = PyTuple_Size(passes), room = ROOM;
    int good = total && n <= MOST_PASSES && grid.len == total * (Py_ssize_t)sizeof(double);
    for (Py_ssize_t i = 0; good && i < n; i++) {
        good = read_pass(PyTuple_GetItem(passes, i), &box, all + i);
        /* A column may be as long as a chunk. */
        if (good && box.counts[all[i].axis] > room) room = box.counts[all[i].axis];
    }
    double *work = good ? malloc((size_t)(room < total ? room : total) * sizeof(double)) : NULL;
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
