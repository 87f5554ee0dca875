/* SPDX-License-Identifier: MIT
 *
 * What bands and variables before tell of the sizes of a band's set of variables, and the guide after it. Integers only, the
 * same as the NumPy code in hbae/codecs/hints.py.
 */
#include "_sets.h"

#include <stdlib.h>
#include <string.h>

/* As in neighbours.py and hints.py. */
#define GUIDE_BITS 3
#define BAND 2
#define GUIDE 1

FOR_ANY_UNIT static void add_plain(uint32_t *sums, const uint16_t *from, uint32_t factor, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) sums[i] += factor * from[i];
}

/* Add a row of what a view tells; gives whether there is anything. */
static int add_seen(const Views *k, const View *v, Py_ssize_t variable, uint32_t *sums, uint32_t factor) {
    Py_ssize_t row = (Py_ssize_t)((const int64_t *)v->there.buf)[variable], last = k->rank - 1, n = k->shape[last];
    if (row < 0) return 0;
    const uint16_t *from = (const uint16_t *)v->sizes.buf + row * v->all;
    for (Py_ssize_t a = 0; a < last; a++) from += v->index[a][k->at[a]];
    if (!any_byte(from, 2 * v->shape[last])) return 0;
    if (v->plain)
        add_plain(sums, from, factor, n);
    else
        for (Py_ssize_t i = 0; i < n; i++) sums[i] += factor * from[v->index[last][i]];
    return 1;
}

/* Quotients by multiplication: exact for numbers below 2^32 / divisor. */
FOR_ANY_UNIT static void add_mean(uint32_t *sums, const uint32_t *siblings, uint32_t count, Py_ssize_t n) {
    uint64_t inverse = (1ULL << 32) / count + 1;
    for (Py_ssize_t i = 0; i < n; i++) sums[i] += BAND * (uint32_t)((16 * siblings[i] * inverse) >> 32);
}

FOR_ANY_UNIT static void finish(uint16_t *out, const uint32_t *sums, const uint16_t *guide, const uint16_t *classes,
                                uint32_t weight, Py_ssize_t n) {
    uint64_t inverse = (1ULL << 32) / weight + 1;
    if (!guide) {
        for (Py_ssize_t i = 0; i < n; i++) out[i] = (uint16_t)(((sums[i] * inverse) >> 32) << GUIDE_BITS);
        return;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t near = guide[i] < 16 * CLIP ? guide[i] : 16 * CLIP;
        out[i] = (uint16_t)((((sums[i] + near) * inverse) >> 32 << GUIDE_BITS) + classes[near]);
    }
}

void join_views(Views *k, Py_ssize_t first, Py_ssize_t variables, const uint16_t *guide, const uint16_t *classes, uint16_t *out,
                uint8_t *live) {
    Py_ssize_t n = k->shape[k->rank - 1], rows = 1;
    uint32_t weight = (uint32_t)(k->num_views - k->num_siblings + (k->num_siblings > 0)) * BAND + (guide ? GUIDE : 0);
    for (Py_ssize_t a = 0; a < k->rank - 1; a++) rows *= k->shape[a];
    for (Py_ssize_t v = 0; v < variables; v++)
        for (Py_ssize_t row = 0; row < rows; row++, out += n) {
            memset(k->sums, 0, (size_t)n * sizeof(uint32_t));
            int i = 0, any = guide && any_byte(guide + row * n, 2 * n), beside = 0;
            for (; i < k->num_views - k->num_siblings; i++)
                any |= add_seen(k, k->views + i, first + v, k->sums, BAND * (uint32_t)k->views[i].factor);
            if (k->num_siblings) memset(k->siblings, 0, (size_t)n * sizeof(uint32_t));
            for (; i < k->num_views; i++) beside |= add_seen(k, k->views + i, first + v, k->siblings, 1);
            if (beside) add_mean(k->sums, k->siblings, (uint32_t)k->num_siblings, n);
            if (any || beside)
                finish(out, k->sums, guide ? guide + row * n : NULL, classes, weight, n);
            else
                for (Py_ssize_t j = 0; j < n; j++) out[j] = guide ? classes[0] : 0;
            if (live) *live++ = (uint8_t)(any || beside || (guide && classes[0]));
            for (Py_ssize_t a = k->rank - 2; a >= 0 && ++k->at[a] == k->shape[a]; a--) k->at[a] = 0;
        }
}

/* Fill in one view; its buffers are held from then on, if it gives 1. */
static int read_view(const Views *k, PyObject *t, View *v) {
    if (!PyTuple_Check(t) || PyTuple_Size(t) != 5) return 0;
    v->factor = PyLong_AsSsize_t(PyTuple_GetItem(t, 4));
    if (PyErr_Occurred() || v->factor < 0 || v->factor > 16) return 0;
    if (!read_tuple(PyTuple_GetItem(t, 2), k->rank, v->shape) || !read_tuple(PyTuple_GetItem(t, 3), k->rank, v->ratios)) return 0;
    if (PyObject_GetBuffer(PyTuple_GetItem(t, 0), &v->sizes, PyBUF_SIMPLE) < 0) return 0;
    if (PyObject_GetBuffer(PyTuple_GetItem(t, 1), &v->there, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&v->sizes);
        return 0;
    }
    return 1;
}

/* Whether a view's buffers hold what it needs for so many variables of the band; its indices are made. */
static int check_view(const Views *k, View *v, Py_ssize_t variables) {
    Py_ssize_t rows = v->there.len / 8, last = k->rank - 1;
    v->all = 1;
    for (Py_ssize_t a = last; a >= 0; a--) {
        Py_ssize_t n = v->shape[a];
        if (n < 1 || n > MOST || v->ratios[a] < 1 || v->all > PY_SSIZE_T_MAX / 8 / n) return 0;
        v->index[a] = malloc((size_t)k->shape[a] * sizeof(Py_ssize_t));
        if (!v->index[a]) {
            PyErr_NoMemory();
            return 0;
        }
        for (Py_ssize_t i = 0; i < k->shape[a]; i++)
            v->index[a][i] = (i / v->ratios[a] < n - 1 ? i / v->ratios[a] : n - 1) * v->all;
        v->all *= n;
    }
    v->plain = v->ratios[last] == 1 && v->shape[last] >= k->shape[last];
    if (v->there.len % 8 || variables > rows || v->sizes.len % (2 * v->all)) return 0;
    for (Py_ssize_t r = 0; r < rows; r++) {
        int64_t there = ((const int64_t *)v->there.buf)[r];
        if (there < -1 || there >= v->sizes.len / 2 / v->all) return 0;
    }
    return 1;
}

Views *make_views(PyObject *shape, Py_ssize_t num) {
    Views *k = calloc(1, sizeof(Views));
    if (!k) {
        PyErr_NoMemory();
        return NULL;
    }
    k->rank = PyTuple_Check(shape) ? PyTuple_Size(shape) : 0, k->all = 1;
    int good = num >= 0 && num <= MOST_VIEWS && k->rank >= 1 && k->rank <= MOST_AXES && read_tuple(shape, k->rank, k->shape);
    for (Py_ssize_t a = 0; good && a < k->rank; a++) {
        good = k->shape[a] >= 1 && k->shape[a] <= MOST && k->all <= PY_SSIZE_T_MAX / 8 / k->shape[a];
        k->all *= good ? k->shape[a] : 1;
    }
    if (good) return k;
    release_views(k);
    return NULL;
}

/* Hold views; gives NULL where they do not fit. */
static Views *hold_views(PyObject *views, int siblings, PyObject *shape) {
    Py_ssize_t num = PyTuple_Check(views) ? PyTuple_Size(views) : -1;
    Views *k = make_views(shape, num);
    int good = k && siblings >= 0 && siblings <= num;
    for (; good && k->num_views < num; k->num_views += good)
        good = read_view(k, PyTuple_GetItem(views, k->num_views), k->views + k->num_views);
    if (good) {
        k->num_siblings = siblings;
        return k;
    }
    release_views(k);
    return NULL;
}

int check_views(Views *k, Py_ssize_t variables) {
    for (int i = 0; i < k->num_views; i++)
        if (!check_view(k, k->views + i, variables)) return 0;
    size_t n = (size_t)k->shape[k->rank - 1];
    k->sums = malloc(n * sizeof(uint32_t)), k->siblings = malloc(n * sizeof(uint32_t));
    if (k->sums && k->siblings) return 1;
    PyErr_NoMemory();
    return 0;
}

void release_views(Views *k) {
    if (!k) return;
    for (int i = 0; i < k->num_views; i++) {
        for (Py_ssize_t a = 0; a < k->rank; a++) free(k->views[i].index[a]);
        PyBuffer_Release(&k->views[i].sizes);
        PyBuffer_Release(&k->views[i].there);
    }
    free(k->sums);
    free(k->siblings);
    free(k);
}

PyDoc_STRVAR(join_doc,
             "join(views, num_siblings, shape, first, guide, classes, out)\n--\n\n"
             "Write the weighted mean of what other bands and the guide tell some variables of a band, and the guide's class.\n\n"
             "`views`: tuple of (sizes, there, shape, ratios, factor), the siblings last: uint16 sizes (R, *shape), int64 places of\n"
             "the band's variables in R (-1: none), how many indices see one of theirs. `shape`: of the band. `first`: number of\n"
             "the first variable. `guide`: uint16 (*shape), or empty. `classes`: uint16 by value of the guide. `out`: uint16.");

static PyObject *join(PyObject *self, PyObject *args) {
    Py_buffer guide, classes, out;
    PyObject *views, *shape;
    int siblings;
    Py_ssize_t first;
    if (!PyArg_ParseTuple(args, "OiOny*y*w*", &views, &siblings, &shape, &first, &guide, &classes, &out)) return NULL;
    Views *k = hold_views(views, siblings, shape);
    Py_ssize_t variables = k ? out.len / 2 / k->all : 0;
    int good = k && (k->num_views > 0 || guide.len > 0) && out.len % (2 * k->all) == 0 &&
               (guide.len == 0 || guide.len == 2 * k->all) && classes.len == (16 * CLIP + 1) * 2 && first >= 0 &&
               first <= PY_SSIZE_T_MAX - variables && check_views(k, first + variables);
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        join_views(k, first, variables, guide.len ? guide.buf : NULL, classes.buf, out.buf, NULL);
        Py_END_ALLOW_THREADS;
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "join: shapes and buffers do not fit");
    release_views(k);
    PyBuffer_Release(&guide);
    PyBuffer_Release(&classes);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

FOR_ANY_UNIT static void add_row(uint32_t *sums, const uint16_t *from, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) sums[i] += from[i];
}

/* Means by multiplication are exact up to so many sizes, which are CLIP at most: 16 * CLIP * 512 is below 2^32 / 512. */
#define FEW 512

FOR_ANY_UNIT static void next_guide(uint16_t *out, const uint16_t *guide, const uint32_t *sums, uint32_t count, Py_ssize_t n) {
    uint64_t inverse = (1ULL << 32) / count + 1;
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t mean = count <= FEW ? (uint32_t)(16 * sums[i] * inverse >> 32) : 16 * sums[i] / count;
        out[i] = (uint16_t)(guide ? (3 * mean + guide[i]) >> 2 : mean);
    }
}

void settle_sizes(const uint16_t *known, const uint8_t *live, Py_ssize_t rank, const Py_ssize_t *shape, Py_ssize_t variables,
                  const uint16_t *guide, uint32_t *sums, uint16_t *sizes, uint16_t *out) {
    Py_ssize_t steps[MOST_AXES], at[MOST_AXES] = {0}, all = 1, wide = 1, first = 0, n = shape[rank - 1];
    for (Py_ssize_t a = rank - 1; a >= 0; a--) {
        steps[a] = wide;
        first += wide;
        wide *= shape[a] + 2;
        all *= shape[a];
    }
    memset(sums, 0, (size_t)all * sizeof(uint32_t));
    for (Py_ssize_t v = 0; v < variables; v++)
        for (Py_ssize_t row = 0; row < all; row += n, sizes += n) {
            Py_ssize_t place = first + v * wide;
            for (Py_ssize_t a = 0; a < rank - 1; a++) place += at[a] * steps[a];
            if (!live || live[place / (n + 2)]) {
                memcpy(sizes, known + place, (size_t)n * sizeof(uint16_t));
                add_row(sums + row, known + place, n);
            } else
                memset(sizes, 0, (size_t)n * sizeof(uint16_t));
            for (Py_ssize_t a = rank - 2; a >= 0 && ++at[a] == shape[a]; a--) at[a] = 0;
        }
    next_guide(out, guide, sums, (uint32_t)variables, all);
}

PyDoc_STRVAR(settle_doc,
             "settle(known, shape, guide, sizes, out)\n--\n\n"
             "Copy sizes without their border, and write the guide after these variables.\n\n"
             "`known`: uint16 (V, *shape + 2). `guide`: uint16 (*shape), or empty. `sizes`: uint16 (V, *shape).\n"
             "`out`: uint16 (*shape).");

static PyObject *settle(PyObject *self, PyObject *args) {
    Py_buffer known, guide, sizes, out;
    PyObject *shape;
    if (!PyArg_ParseTuple(args, "y*Oy*w*w*", &known, &shape, &guide, &sizes, &out)) return NULL;
    Py_ssize_t n[MOST_AXES], all = 1, wide = 1, rank = PyTuple_Check(shape) ? PyTuple_Size(shape) : 0;
    int good = rank >= 1 && rank <= MOST_AXES && read_tuple(shape, rank, n);
    for (Py_ssize_t a = rank - 1; good && a >= 0; a--) {
        good = n[a] >= 1 && n[a] <= MOST && wide <= PY_SSIZE_T_MAX / 8 / (n[a] + 2);
        if (!good) break;
        wide *= n[a] + 2;
        all *= n[a];
    }
    Py_ssize_t variables = good ? known.len / 2 / wide : 0;
    good = good && variables >= 1 && known.len == 2 * wide * variables && sizes.len == 2 * all * variables &&
           (guide.len == 0 || guide.len == 2 * all) && out.len == 2 * all;
    uint32_t *sums = good ? malloc((size_t)all * sizeof(uint32_t)) : NULL;
    if (sums) {
        Py_BEGIN_ALLOW_THREADS;
        settle_sizes(known.buf, NULL, rank, n, variables, guide.len ? guide.buf : NULL, sums, sizes.buf, out.buf);
        Py_END_ALLOW_THREADS;
        free(sums);
    } else if (good)
        PyErr_NoMemory();
    else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "settle: shapes and buffers do not fit");
    PyBuffer_Release(&known);
    PyBuffer_Release(&guide);
    PyBuffer_Release(&sizes);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"join", join, METH_VARARGS, join_doc}, {"settle", settle, METH_VARARGS, settle_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_hints", "Compiled hints.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__hints(void) { return PyModule_Create(&module); }
