/* SPDX-License-Identifier: MIT
 *
 * What the compiled kernels share.
 */
#ifndef HBAE_KERNEL_H
#define HBAE_KERNEL_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

/* A function for each of some vector units; the machine at hand takes its own. Elementwise operations round alike on all. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_UNITS(...) __attribute__((target_clones(__VA_ARGS__)))
#else
#define FOR_UNITS(...)
#endif
#define FOR_ANY_UNIT FOR_UNITS("avx2", "default")
#define FOR_WIDE_UNITS FOR_UNITS("arch=x86-64-v4", "avx2", "default")

/* Whether a Python object is a tuple of n integers, which are written to `out`. */
static inline int read_tuple(PyObject *t, Py_ssize_t n, Py_ssize_t *out) {
    if (!PyTuple_Check(t) || PyTuple_Size(t) != n) return 0;
    for (Py_ssize_t i = 0; i < n; i++) out[i] = PyLong_AsSsize_t(PyTuple_GetItem(t, i));
    return !PyErr_Occurred();
}

#endif
