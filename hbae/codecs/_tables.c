/* SPDX-License-Identifier: MIT
 *
 * Bits of tokens under tables that contexts share. Integers only, the same as the NumPy code in hbae/codecs/tables.py.
 */
#include "../_kernel.h"

#include <stdint.h>
#include <stdlib.h>

#define LOG_BITS 10
/* Fractional bits of logarithms, and of a step of the table of logarithms. */
#define FINE 20
#define STEP (FINE - LOG_BITS)
/* Bits of a table and of each of its tokens, as in tables.py. */
#define TABLE 12
#define TOKEN 9

/* n log2 n up to `few`; logarithms from 1 to 2. */
typedef struct {
    const int64_t *few, *logs;
    Py_ssize_t num_few;
} Logs;

static int hold_logs(const Py_buffer *few, const Py_buffer *logs, Logs *l) {
    l->few = few->buf, l->logs = logs->buf, l->num_few = few->len / 8;
    return few->len >= 8 && few->len % 8 == 0 && logs->len == 8 * ((1 << LOG_BITS) + 1);
}

static inline int64_t bits_of(const Logs *l, int64_t n) {
    if (n < l->num_few) return n < 0 ? 0 : l->few[n];
    int e = 0;
    while (n >> e >= 2) e++;
    int64_t m = e > FINE ? n >> (e - FINE) : n << (FINE - e), i = m >> STEP & ((1 << LOG_BITS) - 1);
    int64_t log = ((int64_t)e << FINE) + l->logs[i] + ((l->logs[i + 1] - l->logs[i]) * (m & ((1 << STEP) - 1)) >> STEP);
    return n * log;
}

/* Of the sum of two rows, or of one and nothing. */
static int64_t cost(const Logs *l, const int64_t *a, const int64_t *b, Py_ssize_t n) {
    int64_t total = 0, bits = 0, used = 0;
    for (Py_ssize_t k = 0; k < n; k++) {
        int64_t h = a[k] + (b ? b[k] : 0);
        if (!h) continue;
        total += h;
        bits += bits_of(l, h);
        used++;
    }
    return bits_of(l, total) - bits + ((TABLE + TOKEN * used) << FINE);
}

PyDoc_STRVAR(costs_doc, "costs(rows, other, few, logs, out)\n--\n\n"
                        "Write the bits (int64, 2**-20) of each of the rows (int64), or of its sum with that of `other`, which may be empty.");

static PyObject *costs(PyObject *self, PyObject *args) {
    Py_buffer rows, other, few, logs, out;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*", &rows, &other, &few, &logs, &out)) return NULL;
    Logs l;
    Py_ssize_t n = out.len / 8, width = n ? rows.len / 8 / n : 0;
    if (hold_logs(&few, &logs, &l) && out.len == 8 * n && rows.len == 8 * n * width && (!other.len || other.len == rows.len)) {
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t i = 0; i < n; i++)
            ((int64_t *)out.buf)[i] = cost(&l, (const int64_t *)rows.buf + i * width,
                                           other.len ? (const int64_t *)other.buf + i * width : NULL, width);
        Py_END_ALLOW_THREADS;
    } else
        PyErr_SetString(PyExc_ValueError, "costs: buffers do not fit");
    PyBuffer_Release(&rows);
    PyBuffer_Release(&other);
    PyBuffer_Release(&few);
    PyBuffer_Release(&logs);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(pairs_doc, "pair_costs(rows, few, logs, out)\n--\n\n"
                        "Write the bits (int64, 2**-20) of the sums of any two rows, first and later one, to out (n, n).");

static PyObject *pair_costs(PyObject *self, PyObject *args) {
    Py_buffer rows, few, logs, out;
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &rows, &few, &logs, &out)) return NULL;
    Logs l;
    Py_ssize_t n = 0;
    while (8 * n * n < out.len) n++;
    Py_ssize_t width = n ? rows.len / 8 / n : 0;
    if (hold_logs(&few, &logs, &l) && out.len == 8 * n * n && rows.len == 8 * n * width) {
        const int64_t *row = rows.buf;
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t i = 0; i < n; i++)
            for (Py_ssize_t j = i + 1; j < n; j++)
                ((int64_t *)out.buf)[i * n + j] = cost(&l, row + i * width, row + j * width, width);
        Py_END_ALLOW_THREADS;
    } else
        PyErr_SetString(PyExc_ValueError, "pair_costs: buffers do not fit");
    PyBuffer_Release(&rows);
    PyBuffer_Release(&few);
    PyBuffer_Release(&logs);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(deal_doc, "deal(rows, bits, run, out)\n--\n\n"
                       "Write (int64) for each of the rows the table whose `bits` (tables, tokens) code it in the fewest, or the last\n"
                       "row's where that takes no more than `run` more.");

static PyObject *deal(PyObject *self, PyObject *args) {
    Py_buffer rows, bits, out;
    long long run;
    if (!PyArg_ParseTuple(args, "y*y*Lw*", &rows, &bits, &run, &out)) return NULL;
    Py_ssize_t n = out.len / 8, width = n ? rows.len / 8 / n : 0, tables = width ? bits.len / 8 / width : 0, last = -1;
    int64_t *seen = malloc((size_t)(2 * width + 1) * sizeof(int64_t));
    if (seen && n && tables && out.len == 8 * n && rows.len == 8 * n * width && bits.len == 8 * tables * width) {
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t i = 0; i < n; i++) {
            const int64_t *row = (const int64_t *)rows.buf + i * width;
            Py_ssize_t used = 0, best = 0;
            for (Py_ssize_t k = 0; k < width; k++)
                if (row[k]) seen[2 * used] = k, seen[2 * used++ + 1] = row[k];
            int64_t least = INT64_MAX, mine = 0;
            for (Py_ssize_t t = 0; t < tables; t++) {
                const int64_t *table = (const int64_t *)bits.buf + t * width;
                int64_t sum = 0;
                for (Py_ssize_t k = 0; k < used; k++) sum += seen[2 * k + 1] * table[seen[2 * k]];
                if (sum < least) least = sum, best = t;
                if (t == last) mine = sum;
            }
            if (last < 0 || mine > least + run) last = best;
            ((int64_t *)out.buf)[i] = last;
        }
        Py_END_ALLOW_THREADS;
    } else if (!seen)
        PyErr_NoMemory();
    else
        PyErr_SetString(PyExc_ValueError, "deal: buffers do not fit");
    free(seen);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&bits);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"costs", costs, METH_VARARGS, costs_doc},
                                {"pair_costs", pair_costs, METH_VARARGS, pairs_doc},
                                {"deal", deal, METH_VARARGS, deal_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_tables", "Compiled costs of tables.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__tables(void) { return PyModule_Create(&module); }
