/* SPDX-License-Identifier: MIT
 *
 * Predictions of points between known ones along an axis. Integers only, which wrap around where they are too large, the same
 * as the NumPy code in hbae/exact/interpolate.py.
 */
#include "../_kernel.h"

#include <stdint.h>

#define MOST_AXES 16

/* How a point is predicted: by its two neighbours, four, three (none before, none behind), or by those before it. */
enum { LINEAR, CUBIC, FIRST, LAST, BEHIND, ALONE };

static int way_of(Py_ssize_t i, Py_ssize_t count, Py_ssize_t known, int cubic) {
    Py_ssize_t both = count < known - 1 ? count : known - 1;
    if (i >= both) return i ? BEHIND : ALONE;
    if (!cubic || known < 3) return LINEAR;
    if (i == both - 1 && both >= 2 && both == known - 1) return LAST;
    if (i == 0) return FIRST;
    return i < known - 2 ? CUBIC : LINEAR;
}

static inline uint64_t size_of(uint64_t v) { return (int64_t)v < 0 ? 0 - v : v; }

/* `p`: the known point before; `s`: from one known point along the axis to the next. */
static inline void predict_one(int way, const uint64_t *p, Py_ssize_t s, int64_t *guess, int64_t *slope) {
    uint64_t b = p[0], c = way < BEHIND ? p[s] : 0;
    switch (way) {
    case CUBIC: *guess = (int64_t)(9 * (b + c) - p[-s] - p[2 * s] + 8) >> 4; break;
    case FIRST: *guess = (int64_t)(3 * b + 6 * c - p[2 * s] + 4) >> 3; break;
    case LAST: *guess = (int64_t)(6 * b + 3 * c - p[-s] + 4) >> 3; break;
    case LINEAR: *guess = (int64_t)(b + c + 1) >> 1; break;
    case BEHIND: *guess = (int64_t)(b + (uint64_t)((int64_t)(b - p[-s]) >> 1)); break;
    default: *guess = (int64_t)b;
    }
    *slope = way == ALONE ? 0 : (int64_t)size_of(way == BEHIND ? b - p[-s] : c - b);
}

#define ROW(WAY)                                                                                                   \
    case WAY:                                                                                                      \
        for (Py_ssize_t j = 0; j < n; j++) predict_one(WAY, p + j * step, s, guess + j, slope + j);                \
        break;

FOR_ANY_UNIT static void predict_row(int way, const uint64_t *p, Py_ssize_t s, Py_ssize_t n, Py_ssize_t step, int64_t *guess,
                                     int64_t *slope) {
    switch (way) { ROW(LINEAR) ROW(CUBIC) ROW(FIRST) ROW(LAST) ROW(BEHIND) ROW(ALONE) }
}

PyDoc_STRVAR(predict_doc, "predict(known, axis, cubic, guess, slope)\n--\n\n"
                          "Write predictions and slopes (int64, contiguous, as long as the known values but along the axis, where\n"
                          "they are as many or one less) of the points between known values (int64, any strides) along an axis.");

static PyObject *predict(PyObject *self, PyObject *args) {
    PyObject *object;
    Py_buffer known, guess, slope;
    Py_ssize_t axis;
    int cubic;
    if (!PyArg_ParseTuple(args, "Onpw*w*", &object, &axis, &cubic, &guess, &slope)) return NULL;
    if (PyObject_GetBuffer(object, &known, PyBUF_STRIDED_RO) < 0) {
        PyBuffer_Release(&guess);
        PyBuffer_Release(&slope);
        return NULL;
    }
    Py_ssize_t rank = known.ndim, rest = 1, counts[MOST_AXES], steps[MOST_AXES], at[MOST_AXES] = {0};
    int good = known.itemsize == 8 && rank >= 1 && rank <= MOST_AXES && axis >= 0 && axis < rank && guess.len == slope.len;
    for (Py_ssize_t a = 0; good && a < rank; a++) {
        counts[a] = known.shape[a];
        steps[a] = known.strides[a] / 8;
        good = counts[a] >= 1 && known.strides[a] % 8 == 0;
        if (a != axis) rest *= counts[a];
    }
    Py_ssize_t count = good ? guess.len / 8 / rest : 0, num = good ? counts[axis] : 0;
    good = good && guess.len == 8 * rest * count && count >= num - 1 && count <= num;
    if (good && count) {
        Py_BEGIN_ALLOW_THREADS;
        counts[axis] = count;
        Py_ssize_t last = rank - 1, n = counts[last], rows = rest * count / n;
        int64_t *to = guess.buf, *by = slope.buf;
        for (Py_ssize_t r = 0; r < rows; r++, to += n, by += n) {
            const uint64_t *p = known.buf;
            for (Py_ssize_t a = 0; a < last; a++) p += at[a] * steps[a];
            if (axis != last)
                predict_row(way_of(at[axis], count, num, cubic), p, steps[axis], n, steps[last], to, by);
            else {
                Py_ssize_t begin = n < 2 ? n : 2, end = n - 2 > begin ? n - 2 : begin;
                for (Py_ssize_t j = 0; j < begin; j++) predict_one(way_of(j, count, num, cubic), p + j * steps[last], steps[last], to + j, by + j);
                /* From the second one to the second last all are predicted alike. */
                if (end > begin)
                    predict_row(way_of(begin, count, num, cubic), p + begin * steps[last], steps[last], end - begin, steps[last], to + begin, by + begin);
                for (Py_ssize_t j = end; j < n; j++) predict_one(way_of(j, count, num, cubic), p + j * steps[last], steps[last], to + j, by + j);
            }
            for (Py_ssize_t a = last - 1; a >= 0 && ++at[a] == counts[a]; a--) at[a] = 0;
        }
        Py_END_ALLOW_THREADS;
    } else if (!good)
        PyErr_SetString(PyExc_ValueError, "predict: shapes and buffers do not fit");
    PyBuffer_Release(&known);
    PyBuffer_Release(&guess);
    PyBuffer_Release(&slope);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"predict", predict, METH_VARARGS, predict_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_predicting", "Compiled predictions.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__predicting(void) { return PyModule_Create(&module); }
