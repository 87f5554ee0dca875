/* SPDX-License-Identifier: MIT
 *
 * What is expected of one phase of a wavelet band from the variables before: local least squares in float32, the same operations
 * in the same order as the NumPy code in hbae/codecs/related.py. Some points are worked on side by side.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

#define MOST_AXES 8
#define MOST_LEADERS 15
#define MOST_PLACES 24
#define NUM_LIMITS 15
#define LANES 16
#define ROWS 16
/* As in related.py. */
#define RIDGE 4.0f
#define RIDGE_PART 0x1p-12f
#define BOUND 0x1p64f
#define LARGEST (1 << 20)
/* Of lengths that are looked at. */
#define MOST ((Py_ssize_t)1 << 40)

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_ANY_UNIT __attribute__((target_clones("avx2", "default")))
#else
#define FOR_ANY_UNIT
#endif
#define EACH for (int l = 0; l < LANES; l++)

typedef struct {
    const float *own, *limits;
    uint8_t *out;
    Py_ssize_t rank, counts[MOST_AXES], steps[MOST_AXES];
    /* Variables of a point; those to tell of, the first one; points of the phase. */
    Py_ssize_t all, rows, first, points;
    /* What is at each place around the first point. */
    const float *places[MOST_PLACES];
    int leaders, num_places;
    /* Points on their way: where they lie, their number, how many. */
    Py_ssize_t at[LANES], number[LANES], next;
    int held;
} Work;

typedef struct {
    /* One row more than leaders: four are loaded together. */
    float around[MOST_PLACES][MOST_LEADERS + 1][LANES];
    float lower[MOST_LEADERS][MOST_LEADERS][LANES], scaled[MOST_LEADERS][MOST_LEADERS][LANES];
    float pivots[MOST_LEADERS][LANES], w[MOST_LEADERS + 1][LANES], alike[LANES][MOST_PLACES];
    int live[MOST_PLACES], num_live;
} Batch;

static int any_of(const float *values, Py_ssize_t n) {
    int any = 0;
    for (Py_ssize_t i = 0; i < n; i++) any |= values[i] != 0.0f;
    return any;
}

/* Whether a point has a leader, and a variable to tell of has anything around it. */
FOR_ANY_UNIT static int matters(const Work *k, Py_ssize_t at) {
    if (!any_of(k->own + at, k->leaders)) return 0;
    for (int n = 0; n < k->num_places; n++)
        if (any_of(k->places[n] + at + k->first, k->rows)) return 1;
    return 0;
}

typedef float Four __attribute__((vector_size(16)));

/* Turn four leaders of four points round. */
static int turn_round(const float *const *from, float (*u)[LANES], int l) {
    Four a, b, c, d;
    memcpy(&a, from[0], sizeof a);
    memcpy(&b, from[1], sizeof b);
    memcpy(&c, from[2], sizeof c);
    memcpy(&d, from[3], sizeof d);
    Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    Four ef = __builtin_shufflevector(a, b, 2, 6, 3, 7), gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    a = __builtin_shufflevector(ab, cd, 0, 1, 4, 5), b = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    c = __builtin_shufflevector(ef, gh, 0, 1, 4, 5), d = __builtin_shufflevector(ef, gh, 2, 3, 6, 7);
    memcpy(&u[0][l], &a, sizeof a);
    memcpy(&u[1][l], &b, sizeof b);
    memcpy(&u[2][l], &c, sizeof c);
    memcpy(&u[3][l], &d, sizeof d);
    __typeof__(a != b) any = (a != 0.0f) | (b != 0.0f) | (c != 0.0f) | (d != 0.0f);
    return any[0] | any[1] | any[2] | any[3];
}

/* Leaders of all points at a place; whether any is there. Points have one variable more than leaders. */
static int load(const Work *k, const float *place, float (*u)[LANES]) {
    int any = 0, i = 0;
    for (; i + 4 <= k->leaders + 1; i += 4)
        for (int l = 0; l < LANES; l += 4) {
            const float *from[4];
            for (int m = 0; m < 4; m++) from[m] = place + k->at[l + m] + i;
            any |= turn_round(from, u + i, l);
        }
    for (; i < k->leaders; i++)
        for (int l = 0; l < LANES; l++) {
            u[i][l] = place[k->at[l] + i];
            any |= u[i][l] != 0.0f;
        }
    return any;
}

/* What leaders are at the places around; places where all are zero add nothing and are left out. */
static void gather(const Work *k, Batch *b) {
    b->num_live = 0;
    for (int n = 0; n < k->num_places; n++)
        if (load(k, k->places[n], b->around[b->num_live])) b->live[b->num_live++] = n;
    load(k, k->own, b->w);
}

FOR_ANY_UNIT static void solve(Batch *b, int leaders) {
    for (int i = 0; i < leaders; i++) {
        for (int j = 0; j <= i; j++) {
            float sum[LANES] = {0};
            for (int n = 0; n < b->num_live; n++) {
                const float *x = b->around[n][i], *y = b->around[n][j];
                EACH sum[l] += x[l] * y[l];
            }
            if (i == j) {
                EACH sum[l] += sum[l] * RIDGE_PART;
                EACH sum[l] += RIDGE;
            }
            for (int k = 0; k < j; k++) {
                const float *x = b->scaled[i][k], *y = b->lower[j][k];
                EACH sum[l] -= x[l] * y[l];
            }
            if (j < i) {
                EACH b->scaled[i][j][l] = sum[l];
                EACH b->lower[i][j][l] = sum[l] / b->pivots[j][l];
            } else
                EACH b->pivots[i][l] = sum[l] > RIDGE ? sum[l] : RIDGE;
        }
        for (int k = 0; k < i; k++) EACH b->w[i][l] -= b->lower[i][k][l] * b->w[k][l];
    }
    for (int i = 0; i < leaders; i++) EACH b->w[i][l] /= b->pivots[i][l];
    for (int i = leaders - 1; i >= 0; i--)
        for (int k = i + 1; k < leaders; k++) EACH b->w[i][l] -= b->lower[k][i][l] * b->w[k][l];
    for (int i = 0; i < leaders; i++) EACH b->w[i][l] = b->w[i][l] < BOUND && b->w[i][l] > -BOUND ? b->w[i][l] : 0.0f;
    for (int n = 0; n < b->num_live; n++) {
        float sum[LANES] = {0};
        for (int i = 0; i < leaders; i++) EACH sum[l] += b->around[n][i][l] * b->w[i][l];
        EACH b->alike[l][n] = sum[l];
    }
}

/* Class, times 2, and sign of what is expected of some variables of a point; full blocks stay in registers. */
static inline __attribute__((always_inline)) void tell_block(const Work *k, const Batch *b, int l, Py_ssize_t row, int rows,
                                                             int32_t *code) {
    float total[ROWS] = {0};
    for (int n = 0; n < b->num_live; n++) {
        const float *from = k->places[b->live[n]] + k->at[l] + row;
        float alike = b->alike[l][n];
        for (int r = 0; r < rows; r++) total[r] += alike * from[r];
    }
    for (int r = 0; r < rows; r++) code[r] = total[r] < 0;
    for (int c = 0; c < NUM_LIMITS; c++)
        for (int r = 0; r < rows; r++) code[r] += (total[r] >= k->limits[c]) | (total[r] <= -k->limits[c]) ? 2 : 0;
}

FOR_ANY_UNIT static void tell(const Work *k, const Batch *b) {
    int32_t code[ROWS];
    for (int l = 0; l < k->held; l++) {
        uint8_t *out = k->out + k->number[l];
        for (Py_ssize_t begin = 0; begin < k->rows; begin += ROWS) {
            int rows = k->rows - begin < ROWS ? (int)(k->rows - begin) : ROWS;
            if (rows == ROWS)
                tell_block(k, b, l, k->first + begin, ROWS, code);
            else
                tell_block(k, b, l, k->first + begin, rows, code);
            for (int r = 0; r < rows; r++, out += k->points) *out = (uint8_t)code[r];
        }
    }
}

static void flush(Work *k, Batch *b) {
    if (!k->held) return;
    for (int l = k->held; l < LANES; l++) k->at[l] = k->at[0];
    gather(k, b);
    if (b->num_live) {
        solve(b, k->leaders);
        tell(k, b);
    }
    k->held = 0;
}

static void walk(Work *k, Batch *b, Py_ssize_t axis, Py_ssize_t at) {
    Py_ssize_t step = k->steps[axis];
    if (axis < k->rank - 1) {
        for (Py_ssize_t i = 0; i < k->counts[axis]; i++) walk(k, b, axis + 1, at + i * step);
        return;
    }
    for (Py_ssize_t i = 0; i < k->counts[axis]; i++, at += step, k->next++) {
        if (!matters(k, at)) continue;
        k->at[k->held] = at;
        k->number[k->held++] = k->next;
        if (k->held == LANES) flush(k, b);
    }
}

static int read_tuple(PyObject *t, Py_ssize_t n, Py_ssize_t *out) {
    if (!PyTuple_Check(t) || PyTuple_Size(t) != n) return 0;
    for (Py_ssize_t i = 0; i < n; i++) out[i] = PyLong_AsSsize_t(PyTuple_GetItem(t, i));
    return !PyErr_Occurred();
}

PyDoc_STRVAR(expect_doc,
             "expect(own, others, shape, starts, places, leaders, first, limits, out)\n--\n\n"
             "Write class (times 2) and sign of what is expected of one parity of a band of variables; the rest stays as it is.\n\n"
             "`own`: float32 (*shape + 2, R). `others`: float32 (F, *shape + 2, R). `shape`: (F, R, *shape). `starts`: parity by\n"
             "axis. `places`: band (0: the own one) and step of each. `first`: the first variable of `out`. `limits`: float32 (15). `out`: uint8.");

static PyObject *expect(PyObject *self, PyObject *args) {
    Py_buffer own, others, limits, out;
    PyObject *shape, *starts, *places;
    Work k = {0};
    int leaders;
    Py_ssize_t first;
    if (!PyArg_ParseTuple(args, "y*y*OOOiny*w*", &own, &others, &shape, &starts, &places, &leaders, &first, &limits, &out))
        return NULL;
    Py_ssize_t sizes[MOST_AXES + 2], parity[MOST_AXES], all = 1, low = 0, high = 0, pair[2];
    k.rank = (PyTuple_Check(shape) ? PyTuple_Size(shape) : 0) - 2;
    k.num_places = PyTuple_Check(places) && PyTuple_Size(places) <= MOST_PLACES ? (int)PyTuple_Size(places) : 0;
    int good = k.rank >= 1 && k.rank <= MOST_AXES && k.num_places > 0 && read_tuple(shape, k.rank + 2, sizes) &&
               read_tuple(starts, k.rank, parity) && sizes[0] >= 0 && sizes[1] >= 1 && leaders >= 1 &&
               leaders <= MOST_LEADERS && leaders <= first && first < sizes[1];
    k.points = 1;
    for (Py_ssize_t a = k.rank - 1; good && a >= 0; a--) {
        Py_ssize_t n = sizes[a + 2];
        good = n >= 1 && n <= MOST && parity[a] >= 0 && parity[a] <= 1 && parity[a] < n &&
               all <= PY_SSIZE_T_MAX / 64 / (n + 2) / sizes[1];
        if (!good) break;
        k.counts[a] = (n - parity[a] + 1) / 2;
        k.steps[a] = 2 * all * sizes[1];
        low += (1 + parity[a]) * all;
        high += (1 + parity[a] + 2 * (k.counts[a] - 1)) * all;
        all *= n + 2;
        k.points *= k.counts[a];
    }
    k.all = good ? sizes[1] : 0;
    good = good && sizes[1] <= PY_SSIZE_T_MAX / 16 / all && sizes[0] <= PY_SSIZE_T_MAX / 16 / all / sizes[1] &&
           own.len == sizes[1] * all * 4 && others.len == sizes[0] * sizes[1] * all * 4 && limits.len == NUM_LIMITS * 4 &&
           out.len % k.points == 0;
    k.rows = good ? out.len / k.points : 0;
    good = good && first + k.rows <= sizes[1];
    for (int n = 0; good && n < k.num_places; n++) {
        good = read_tuple(PyTuple_GetItem(places, n), 2, pair) && pair[0] >= 0 && pair[0] <= sizes[0] && pair[1] >= -low &&
               pair[1] < all - high;
        if (!good) break;
        const float *band = pair[0] ? (const float *)others.buf + (pair[0] - 1) * sizes[1] * all : (const float *)own.buf;
        k.places[n] = band + pair[1] * sizes[1];
    }
    if (good) {
        k.own = own.buf, k.limits = limits.buf, k.out = out.buf, k.leaders = leaders, k.first = first;
        Batch b;
        Py_BEGIN_ALLOW_THREADS;
        walk(&k, &b, 0, low * k.all);
        flush(&k, &b);
        Py_END_ALLOW_THREADS;
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "expect: shapes and buffers do not fit");
    PyBuffer_Release(&own);
    PyBuffer_Release(&others);
    PyBuffer_Release(&limits);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

typedef struct {
    Py_ssize_t rank, counts[MOST_AXES], out_steps[MOST_AXES], steps[MOST_AXES], ratios[MOST_AXES], lasts[MOST_AXES], rows, points;
    const int64_t *places;
    /* Whether the variables lie side by side there. */
    int plain;
} Copy;

static void note_all(const Copy *c, Py_ssize_t axis, float *out, const int64_t **values) {
    Py_ssize_t step = c->out_steps[axis];
    for (Py_ssize_t i = 0; i < c->counts[axis]; i++, out += step) {
        if (axis < c->rank - 1) {
            note_all(c, axis + 1, out, values);
            continue;
        }
        const int64_t *from = (*values)++;
        for (Py_ssize_t r = 0; r < c->rows; r++) {
            int64_t v = from[r * c->points];
            out[r] = (float)(v > LARGEST ? LARGEST : v < -LARGEST ? -LARGEST : v);
        }
    }
}

PyDoc_STRVAR(note_doc,
             "note(own, shape, starts, first, values)\n--\n\n"
             "Put the integers of one parity of the band, of variables from `first` on, into their places, cut to the limits.\n\n"
             "`own`, `starts`: as for `expect`. `shape`: (R, *shape). `values`: int64.");

static PyObject *note(PyObject *self, PyObject *args) {
    Py_buffer own, values;
    PyObject *shape, *starts;
    Copy c = {0};
    Py_ssize_t first, sizes[MOST_AXES + 1], parity[MOST_AXES], all = 1, low = 0;
    if (!PyArg_ParseTuple(args, "w*OOny*", &own, &shape, &starts, &first, &values)) return NULL;
    c.rank = (PyTuple_Check(shape) ? PyTuple_Size(shape) : 0) - 1;
    int good = c.rank >= 1 && c.rank <= MOST_AXES && read_tuple(shape, c.rank + 1, sizes) && read_tuple(starts, c.rank, parity) &&
               sizes[0] >= 1;
    c.points = 1;
    for (Py_ssize_t a = c.rank - 1; good && a >= 0; a--) {
        Py_ssize_t n = sizes[a + 1];
        good = n >= 1 && n <= MOST && parity[a] >= 0 && parity[a] <= 1 && parity[a] < n &&
               all <= PY_SSIZE_T_MAX / 64 / (n + 2) / sizes[0];
        if (!good) break;
        c.counts[a] = (n - parity[a] + 1) / 2;
        c.out_steps[a] = 2 * all * sizes[0];
        low += (1 + parity[a]) * all;
        all *= n + 2;
        c.points *= c.counts[a];
    }
    good = good && sizes[0] <= PY_SSIZE_T_MAX / 16 / all && own.len == sizes[0] * all * 4 && values.len % (c.points * 8) == 0 &&
           first >= 0 && first <= sizes[0] - values.len / 8 / c.points;
    if (good) {
        const int64_t *from = values.buf;
        c.rows = values.len / 8 / c.points;
        Py_BEGIN_ALLOW_THREADS;
        note_all(&c, 0, (float *)own.buf + low * sizes[0] + first, &from);
        Py_END_ALLOW_THREADS;
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "note: shapes and buffers do not fit");
    PyBuffer_Release(&own);
    PyBuffer_Release(&values);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static void see_point(const Copy *c, float *out, const float *from) {
    if (c->plain)
        memcpy(out, from + c->places[0], (size_t)c->rows * sizeof(float));
    else
        for (Py_ssize_t r = 0; r < c->rows; r++)
            if (c->places[r] >= 0) out[r] = from[c->places[r]];
}

static void see_all(const Copy *c, Py_ssize_t axis, float *out, const float *from) {
    Py_ssize_t ratio = c->ratios[axis], last = c->lasts[axis], count = c->counts[axis];
    for (Py_ssize_t i = 0, there = 0; i < count; there++, from += c->steps[axis]) {
        Py_ssize_t end = there < last && ratio < count - i ? i + ratio : count;
        for (; i < end; i++, out += c->out_steps[axis]) {
            if (axis < c->rank - 1)
                see_all(c, axis + 1, out, from);
            else
                see_point(c, out, from);
        }
    }
}

PyDoc_STRVAR(see_doc,
             "see(own, first, places, steps, ratios, lasts, shape, out)\n--\n\n"
             "Write what another band has at the points of a band.\n\n"
             "`own`: float32, the other band; its first point begins at `first`. `places`: int64, where each variable is in a\n"
             "point, or -1. `steps`: from one of its indices to the next, `lasts`: the last ones, `ratios`: how many points of\n"
             "the band see one, by axis. `shape`: of the band. `out`: float32 (*shape + 2, R).");

static PyObject *see(PyObject *self, PyObject *args) {
    Py_buffer own, places, out;
    PyObject *shape, *steps, *ratios, *lasts;
    Copy c = {0};
    Py_ssize_t first, all = 1, low = 0, far = 0, most = 0;
    if (!PyArg_ParseTuple(args, "y*ny*OOOOw*", &own, &first, &places, &steps, &ratios, &lasts, &shape, &out)) return NULL;
    Py_ssize_t size = own.len / 4;
    c.rows = places.len / 8, c.places = places.buf;
    c.rank = PyTuple_Check(shape) ? PyTuple_Size(shape) : 0;
    int good = c.rank >= 1 && c.rank <= MOST_AXES && read_tuple(shape, c.rank, c.counts) && read_tuple(steps, c.rank, c.steps) &&
               read_tuple(ratios, c.rank, c.ratios) && read_tuple(lasts, c.rank, c.lasts) && places.len % 8 == 0 && c.rows >= 1 &&
               first >= 0 && first < size;
    for (Py_ssize_t a = c.rank - 1; good && a >= 0; a--) {
        good = c.counts[a] >= 1 && c.counts[a] <= MOST && c.ratios[a] >= 1 && c.lasts[a] >= 0 && c.steps[a] >= 1 &&
               c.lasts[a] <= (size - far) / c.steps[a] && all <= PY_SSIZE_T_MAX / 64 / (c.counts[a] + 2) / c.rows;
        if (!good) break;
        c.out_steps[a] = all * c.rows;
        low += all;
        all *= c.counts[a] + 2;
        far += c.lasts[a] * c.steps[a];
    }
    c.plain = 1;
    for (Py_ssize_t r = 0; good && r < c.rows; r++) {
        good = c.places[r] >= -1 && c.places[r] < size;
        if (!good) break;
        if (c.places[r] > most) most = c.places[r];
        c.plain = c.plain && c.places[r] >= 0 && c.places[r] == c.places[0] + r;
    }
    good = good && most < size - first && far < size - first - most && c.rows <= PY_SSIZE_T_MAX / 16 / all &&
           out.len == c.rows * all * 4;
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        see_all(&c, 0, (float *)out.buf + low * c.rows, (const float *)own.buf + first);
        Py_END_ALLOW_THREADS;
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "see: shapes and buffers do not fit");
    PyBuffer_Release(&own);
    PyBuffer_Release(&places);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(turn_doc, "turn(values, expected)\n--\n\nChange the signs of int64 values where the lowest bit of `expected` (uint8) is set.");

FOR_ANY_UNIT static void turn_all(int64_t *values, const uint8_t *expected, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        uint64_t mask = -(uint64_t)(expected[i] & 1);
        values[i] = (int64_t)(((uint64_t)values[i] ^ mask) - mask);
    }
}

static PyObject *turn(PyObject *self, PyObject *args) {
    Py_buffer values, expected;
    if (!PyArg_ParseTuple(args, "w*y*", &values, &expected)) return NULL;
    if (values.len == expected.len * 8)
        turn_all(values.buf, expected.buf, expected.len);
    else
        PyErr_SetString(PyExc_ValueError, "turn: buffers do not fit");
    PyBuffer_Release(&values);
    PyBuffer_Release(&expected);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"expect", expect, METH_VARARGS, expect_doc},
                                {"note", note, METH_VARARGS, note_doc},
                                {"see", see, METH_VARARGS, see_doc},
                                {"turn", turn, METH_VARARGS, turn_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_related", "Compiled local least squares.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__related(void) { return PyModule_Create(&module); }
