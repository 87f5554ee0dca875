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
#define LANES 8
/* As in related.py. */
#define RIDGE 4.0f
#define RIDGE_PART 0x1p-12f
#define BOUND 0x1p64f
#define LARGEST (1 << 20)

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
    /* Floats of a variable; variables to tell of, the first one, their points. */
    Py_ssize_t row, rows, first, points;
    /* Where the first variable of each place begins. */
    const float *places[MOST_PLACES];
    int leaders, num_places;
    /* Points on their way: where they lie, their number, how many. */
    Py_ssize_t at[LANES], number[LANES], next;
    int held;
} Work;

typedef struct {
    float around[MOST_PLACES][MOST_LEADERS][LANES];
    float lower[MOST_LEADERS][MOST_LEADERS][LANES], scaled[MOST_LEADERS][MOST_LEADERS][LANES];
    float pivots[MOST_LEADERS][LANES], w[MOST_LEADERS][LANES], alike[MOST_PLACES][LANES], total[LANES];
    int live[MOST_PLACES], num_live;
} Batch;

/* What leaders are at the places around; places where all are zero add nothing and are left out. */
static void gather(const Work *k, Batch *b) {
    b->num_live = 0;
    for (int n = 0; n < k->num_places; n++) {
        float (*u)[LANES] = b->around[b->num_live];
        int any = 0;
        for (int i = 0; i < k->leaders; i++) {
            const float *from = k->places[n] + i * k->row;
            EACH u[i][l] = from[k->at[l]];
            EACH any |= u[i][l] != 0.0f;
        }
        if (any) b->live[b->num_live++] = n;
    }
    for (int i = 0; i < k->leaders; i++) {
        const float *from = k->own + i * k->row;
        EACH b->w[i][l] = from[k->at[l]];
    }
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
        memcpy(b->alike[n], sum, sizeof sum);
    }
}

static void tell(const Work *k, const Batch *b) {
    for (Py_ssize_t r = 0; r < k->rows; r++) {
        float total[LANES] = {0};
        Py_ssize_t row = (k->first + r) * k->row;
        for (int n = 0; n < b->num_live; n++) {
            const float *from = k->places[b->live[n]] + row;
            EACH total[l] += b->alike[n][l] * from[k->at[l]];
        }
        uint8_t *out = k->out + r * k->points;
        for (int l = 0; l < k->held; l++) {
            float size = total[l] < 0 ? -total[l] : total[l];
            int c = 0;
            /* Most are small. */
            while (c < NUM_LIMITS && size >= k->limits[c]) c++;
            out[k->number[l]] = (uint8_t)(2 * c + (total[l] < 0));
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
        int any = 0;
        for (int j = 0; j < k->leaders && !any; j++) any = k->own[j * k->row + at] != 0.0f;
        if (!any) continue;
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
             "`own`: float32 (R, *shape + 2). `others`: float32 (F, R, *shape + 2). `shape`: (F, R, *shape). `starts`: parity by\n"
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
        good = n >= 1 && parity[a] >= 0 && parity[a] <= 1 && parity[a] < n && all <= PY_SSIZE_T_MAX / 16 / (n + 2);
        if (!good) break;
        k.counts[a] = (n - parity[a] + 1) / 2;
        k.steps[a] = 2 * all;
        low += (1 + parity[a]) * all;
        high += (1 + parity[a] + 2 * (k.counts[a] - 1)) * all;
        all *= n + 2;
        k.points *= k.counts[a];
    }
    k.row = all;
    good = good && sizes[1] <= PY_SSIZE_T_MAX / 16 / all && sizes[0] <= PY_SSIZE_T_MAX / 16 / all / sizes[1] &&
           own.len == sizes[1] * all * 4 && others.len == sizes[0] * sizes[1] * all * 4 && limits.len == NUM_LIMITS * 4 && out.len % k.points == 0;
    k.rows = good ? out.len / k.points : 0;
    good = good && first + k.rows <= sizes[1];
    for (int n = 0; good && n < k.num_places; n++) {
        good = read_tuple(PyTuple_GetItem(places, n), 2, pair) && pair[0] >= 0 && pair[0] <= sizes[0] && pair[1] >= -low &&
               pair[1] < all - high;
        if (!good) break;
        const float *band = pair[0] ? (const float *)others.buf + (pair[0] - 1) * sizes[1] * all : (const float *)own.buf;
        k.places[n] = band + pair[1];
    }
    if (good) {
        k.own = own.buf, k.limits = limits.buf, k.out = out.buf, k.leaders = leaders, k.first = first;
        Batch b;
        Py_BEGIN_ALLOW_THREADS;
        walk(&k, &b, 0, low);
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
    Py_ssize_t rank, counts[MOST_AXES], out_steps[MOST_AXES], steps[MOST_AXES], ratios[MOST_AXES], lasts[MOST_AXES];
} Copy;

static void note_all(const Copy *c, Py_ssize_t axis, float *out, const int64_t **values) {
    Py_ssize_t step = c->out_steps[axis];
    for (Py_ssize_t i = 0; i < c->counts[axis]; i++, out += step) {
        if (axis < c->rank - 1)
            note_all(c, axis + 1, out, values);
        else {
            int64_t v = *(*values)++;
            *out = (float)(v > LARGEST ? LARGEST : v < -LARGEST ? -LARGEST : v);
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
    Py_ssize_t first, sizes[MOST_AXES + 1], parity[MOST_AXES], all = 1, low = 0, points = 1;
    if (!PyArg_ParseTuple(args, "w*OOny*", &own, &shape, &starts, &first, &values)) return NULL;
    c.rank = (PyTuple_Check(shape) ? PyTuple_Size(shape) : 0) - 1;
    int good = c.rank >= 1 && c.rank <= MOST_AXES && read_tuple(shape, c.rank + 1, sizes) && read_tuple(starts, c.rank, parity) &&
               sizes[0] >= 1;
    for (Py_ssize_t a = c.rank - 1; good && a >= 0; a--) {
        Py_ssize_t n = sizes[a + 1];
        good = n >= 1 && parity[a] >= 0 && parity[a] <= 1 && parity[a] < n && all <= PY_SSIZE_T_MAX / 16 / (n + 2);
        if (!good) break;
        c.counts[a] = (n - parity[a] + 1) / 2;
        c.out_steps[a] = 2 * all;
        low += (1 + parity[a]) * all;
        all *= n + 2;
        points *= c.counts[a];
    }
    good = good && sizes[0] <= PY_SSIZE_T_MAX / 16 / all && own.len == sizes[0] * all * 4 && values.len % (points * 8) == 0 &&
           first >= 0 && first <= sizes[0] - values.len / 8 / points;
    if (good) {
        const int64_t *from = values.buf;
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t r = 0; r < values.len / 8 / points; r++) note_all(&c, 0, (float *)own.buf + (first + r) * all + low, &from);
        Py_END_ALLOW_THREADS;
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "note: shapes and buffers do not fit");
    PyBuffer_Release(&own);
    PyBuffer_Release(&values);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static void see_all(const Copy *c, Py_ssize_t axis, float *out, const float *grid) {
    Py_ssize_t ratio = c->ratios[axis], last = c->lasts[axis], count = c->counts[axis];
    int inner = axis == c->rank - 1;
    if (inner && ratio == 1 && last == count - 1) {
        for (Py_ssize_t i = 0, step = c->steps[axis]; i < count; i++) out[i] = grid[i * step];
        return;
    }
    for (Py_ssize_t i = 0, there = 0; i < count; there++, grid += c->steps[axis]) {
        Py_ssize_t end = there < last && ratio < count - i ? i + ratio : count;
        for (float v = inner ? *grid : 0.0f; i < end; i++, out += c->out_steps[axis]) {
            if (inner)
                *out = v;
            else
                see_all(c, axis + 1, out, grid);
        }
    }
}

PyDoc_STRVAR(see_doc,
             "see(own, firsts, steps, ratios, lasts, shape, out)\n--\n\n"
             "Write what another band has at the points of a band.\n\n"
             "`own`: float32. `firsts`: int64, where the other band of each variable begins in it, or -1. `steps`: places from one of its\n"
             "indices to the next, `lasts`: the last ones, `ratios`: how many points of the band see one, by axis.\n"
             "`shape`: of the band. `out`: float32 (R, *shape + 2).");

static PyObject *see(PyObject *self, PyObject *args) {
    Py_buffer grid, firsts, out;
    PyObject *shape, *steps, *ratios, *lasts;
    Copy c = {0};
    Py_ssize_t all = 1, low = 0, far = 0;
    if (!PyArg_ParseTuple(args, "y*y*OOOOw*", &grid, &firsts, &steps, &ratios, &lasts, &shape, &out)) return NULL;
    Py_ssize_t rows = firsts.len / 8, places = grid.len / 4;
    c.rank = PyTuple_Check(shape) ? PyTuple_Size(shape) : 0;
    int good = c.rank >= 1 && c.rank <= MOST_AXES && read_tuple(shape, c.rank, c.counts) && read_tuple(steps, c.rank, c.steps) &&
               read_tuple(ratios, c.rank, c.ratios) && read_tuple(lasts, c.rank, c.lasts);
    for (Py_ssize_t a = c.rank - 1; good && a >= 0; a--) {
        good = c.counts[a] >= 1 && c.ratios[a] >= 1 && c.lasts[a] >= 0 && c.steps[a] >= 1 &&
               c.lasts[a] <= (places - far) / c.steps[a] && all <= PY_SSIZE_T_MAX / 16 / (c.counts[a] + 2);
        if (!good) break;
        c.out_steps[a] = all;
        low += all;
        all *= c.counts[a] + 2;
        far += c.lasts[a] * c.steps[a];
    }
    const int64_t *first = firsts.buf;
    for (Py_ssize_t r = 0; good && r < rows; r++) good = first[r] >= -1 && first[r] < places - far;
    good = good && firsts.len % 8 == 0 && rows <= PY_SSIZE_T_MAX / 16 / all && out.len == rows * all * 4;
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t r = 0; r < rows; r++)
            if (first[r] >= 0) see_all(&c, 0, (float *)out.buf + r * all + low, (const float *)grid.buf + first[r]);
        Py_END_ALLOW_THREADS;
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "see: shapes and buffers do not fit");
    PyBuffer_Release(&grid);
    PyBuffer_Release(&firsts);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(turn_doc, "turn(values, expected)\n--\n\nChange the signs of int64 values where the lowest bit of `expected` (uint8) is set.");

FOR_ANY_UNIT static void turn_all(int64_t *values, const uint8_t *expected, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        int64_t mask = -(int64_t)(expected[i] & 1);
        values[i] = (values[i] ^ mask) - mask;
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
