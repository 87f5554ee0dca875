/* SPDX-License-Identifier: MIT
 *
 * Transform coefficients, slab by slab and phase by phase: the steps of hbae/codecs/coefficients.py in one call.
 */
#include "_sets.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    Parity parity;
    Known known;
    Py_buffer table;
} Phase;

typedef struct {
    Py_buffer q, under, buckets, classes, guides;
    /* Of a tile: axes, points; and with a border. */
    Py_ssize_t slabs, tiles, rank, lengths[MOST_AXES], points, wide;
    uint16_t *guide;
    /* Of the slab at hand: the box with values, its sizes with a border, its hints (none: length 0), phases. */
    Py_ssize_t box[MOST_AXES], box_points, box_wide;
    Py_buffer sizes, hints;
    Phase phases[MOST_PHASES];
    Py_ssize_t count;
    /* Room for a phase of the largest slab: places of its points in a tile of q, and in sizes; which of them have values; contexts;
       values sorted and in order; sums; numbers of contexts. */
    Py_ssize_t *at, *at_size, *flat, *room;
    uint16_t *contexts, *sums;
    uint32_t *wide_sums;
    void *sorted, *values;
    /* A stream to read from, or lists to write to, with the end of each step. */
    Reader *reader;
    Py_buffer all_contexts, all_values, ends;
    Py_ssize_t written, steps;
} Slabs;

static int read_shapes(Slabs *s, PyObject *shape) {
    Py_ssize_t n = PyTuple_Check(shape) ? PyTuple_Size(shape) : 0;
    s->rank = n - 2;
    Py_ssize_t all[MOST_AXES + 2];
    if (n < 3 || n > MOST_AXES + 2 || !read_tuple(shape, n, all)) return 0;
    s->slabs = all[0], s->tiles = all[1], s->points = s->wide = 1;
    if (s->slabs < 1 || s->slabs > MOST || s->tiles < 1 || s->tiles > MOST) return 0;
    for (Py_ssize_t a = 0; a < s->rank; a++) {
        s->lengths[a] = all[a + 2];
        if (s->lengths[a] < 1 || s->lengths[a] > MOST || s->wide > PY_SSIZE_T_MAX / 64 / (s->lengths[a] + 2)) return 0;
        s->points *= s->lengths[a], s->wide *= s->lengths[a] + 2;
    }
    if (s->wide > PY_SSIZE_T_MAX / 64 / s->tiles || s->points * s->tiles > PY_SSIZE_T_MAX / 64 / s->slabs) return 0;
    return s->q.len == 8 * s->slabs * s->tiles * s->points && s->under.len == s->slabs * s->points &&
           s->buckets.len == 2 * s->slabs * s->points && s->classes.len >= 2 * (16 * CLIP + 1) && s->guides.len >= 2 * (16 * CLIP + 1);
}

static int make_room(Slabs *s) {
    size_t points = (size_t)s->points, all = points * (size_t)s->tiles, wide = (size_t)(s->wide * s->tiles);
    s->guide = calloc(wide, sizeof(uint16_t));
    s->sizes.buf = malloc(wide * sizeof(uint16_t));
    s->hints.buf = malloc(all * sizeof(uint16_t));
    s->at = malloc(points * sizeof(Py_ssize_t));
    s->at_size = malloc(points * sizeof(Py_ssize_t));
    s->flat = malloc(points * sizeof(Py_ssize_t));
    s->contexts = malloc(all * sizeof(uint16_t));
    s->sums = malloc(points * sizeof(uint16_t));
    s->wide_sums = malloc(points * sizeof(uint32_t));
    s->sorted = malloc(all * sizeof(int64_t));
    s->values = malloc(all * sizeof(int64_t));
    s->room = malloc((size_t)(2 * (s->reader ? s->reader->num : 0) + 1) * sizeof(Py_ssize_t));
    if (s->guide && s->sizes.buf && s->hints.buf && s->at && s->at_size && s->flat && s->contexts && s->sums && s->wide_sums &&
        s->sorted && s->values && s->room)
        return 1;
    PyErr_NoMemory();
    return 0;
}

static void free_room(Slabs *s) {
    void *rooms[] = {s->guide, s->sizes.buf, s->hints.buf, s->at, s->at_size, s->flat, s->contexts, s->sums, s->wide_sums, s->sorted,
                     s->values, s->room};
    for (size_t k = 0; k < sizeof rooms / sizeof *rooms; k++) free(rooms[k]);
}

static void release_phases(Slabs *s) {
    while (s->count) PyBuffer_Release(&s->phases[--s->count].table);
}

/* Hold the phases of a slab's box; it is known before whether there are hints. */
static int hold_slab(Slabs *s, PyObject *one, int hinted) {
    PyObject *box, *phases;
    if (!PyTuple_Check(one) || !PyArg_ParseTuple(one, "OO!", &box, &PyTuple_Type, &phases) || !read_tuple(box, s->rank, s->box)) return 0;
    Py_ssize_t n = PyTuple_Size(phases);
    s->box_points = s->box_wide = 1;
    for (Py_ssize_t a = 0; a < s->rank; a++) {
        if (s->box[a] < 1 || s->box[a] > s->lengths[a]) return 0;
        s->box_points *= s->box[a], s->box_wide *= s->box[a] + 2;
    }
    s->sizes.len = 2 * s->tiles * s->box_wide, s->hints.len = hinted ? 2 * s->tiles * s->box_points : 0;
    if (n < 1 || n > MOST_PHASES) return 0;
    for (; s->count < n; s->count++) {
        Phase *p = s->phases + s->count;
        p->known = (Known){&s->sizes, &s->hints, .classes = &s->classes, .variables = s->tiles};
        if (!hold_phase(PyTuple_GetItem(phases, s->count), box, &p->parity, &p->known, &p->table)) return 0;
    }
    return 1;
}

/* List the phase's points that can have values: where they lie in a tile of q, in sizes, and in the phase; how many. */
static Py_ssize_t list_points(Slabs *s, const Parity *p, const uint8_t *under) {
    Py_ssize_t at[MOST_AXES] = {0}, n = 0;
    for (Py_ssize_t i = 0; i < p->points; i++) {
        Py_ssize_t place = 0, size = 0;
        for (Py_ssize_t a = 0; a < s->rank; a++) {
            Py_ssize_t k = p->starts[a] + 2 * at[a];
            place = place * s->lengths[a] + k, size = size * (s->box[a] + 2) + 1 + k;
        }
        if (under[place]) s->at[n] = place, s->at_size[n] = size, s->flat[n++] = i;
        for (Py_ssize_t a = s->rank - 1; a >= 0 && ++at[a] == p->counts[a]; a--) at[a] = 0;
    }
    return n;
}

/* Contexts of those points only; where nothing is known of any, their buckets are added. */
static int make_contexts(Slabs *s, const Phase *p, const uint16_t *buckets, Py_ssize_t n) {
    if (!write_contexts(&p->known, &p->parity, NULL, s->sums, s->contexts)) return 0;
    int unknown = !s->hints.len && !p->known.neighbours;
    if (n == p->parity.points && !unknown) return 1;
    uint16_t *to = s->contexts;
    for (Py_ssize_t b = 0; b < s->tiles; b++) {
        const uint16_t *from = s->contexts + b * p->parity.points;
        for (Py_ssize_t i = 0; i < n; i++) *to++ = (uint16_t)(from[s->flat[i]] + (unknown ? buckets[s->at[i]] : 0));
    }
    return 1;
}

#define PUT(NAME, INT)                                                                       \
    static void NAME(Slabs *s, int64_t *q, Py_ssize_t n) {                                   \
        const INT *values = s->values;                                                       \
        uint16_t *sizes = s->sizes.buf;                                                      \
        for (Py_ssize_t b = 0; b < s->tiles; b++, q += s->points, sizes += s->box_wide)      \
            for (Py_ssize_t i = 0; i < n; i++) {                                             \
                INT v = *values++;                                                           \
                if (v) q[s->at[i]] = v, sizes[s->at_size[i]] = size_of(v);                   \
            }                                                                                \
    }
PUT(put_wide, int64_t)
PUT(put_narrow, int16_t)

static void take_values(Slabs *s, const int64_t *q, Py_ssize_t n) {
    uint16_t *sizes = s->sizes.buf;
    int64_t *values = (int64_t *)s->all_values.buf + s->written;
    memcpy((uint16_t *)s->all_contexts.buf + s->written, s->contexts, (size_t)(n * s->tiles) * sizeof(uint16_t));
    for (Py_ssize_t b = 0; b < s->tiles; b++, q += s->points, sizes += s->box_wide)
        for (Py_ssize_t i = 0; i < n; i++) {
            *values++ = q[s->at[i]];
            sizes[s->at_size[i]] = size_of(q[s->at[i]]);
        }
    s->written += n * s->tiles;
    ((int64_t *)s->ends.buf)[s->steps++] = s->written;
}

/* Read or write one phase; gives what is wrong with the stream. `fits` is cleared where shapes and buffers do not fit. */
static int do_phase(Slabs *s, const Phase *p, Py_ssize_t slab, int *fits) {
    const uint8_t *under = (const uint8_t *)s->under.buf + slab * s->points;
    int64_t *q = (int64_t *)s->q.buf + slab * s->tiles * s->points;
    Py_ssize_t n = list_points(s, &p->parity, under), all = n * s->tiles;
    if (!n) return FINE;
    *fits = make_contexts(s, p, (const uint16_t *)s->buckets.buf + slab * s->points, n);
    if (!*fits) return FINE;
    if (!s->reader) {
        *fits = all <= s->all_values.len / 8 - s->written && s->steps < s->ends.len / 8;
        if (*fits) take_values(s, q, n);
        return FINE;
    }
    int narrow = 1, fault = read_values(s->reader, s->contexts, all, narrow, s->room, s->sorted, s->values);
    if (fault == TOO_WIDE) {
        narrow = 0;
        fault = read_values(s->reader, s->contexts, all, narrow, s->room, s->sorted, s->values);
    }
    if (fault == FINE) (narrow ? put_narrow : put_wide)(s, q, n);
    return fault;
}

/* Write the hints of a slab's box. */
static int make_hints(Slabs *s) {
    Guide g = {.rank = s->rank + 1, .lengths = {s->tiles}, .counts = {s->tiles}, .weight = 4};
    Py_ssize_t step = 1;
    for (Py_ssize_t a = s->rank; a > 0; a--) {
        g.lengths[a] = s->lengths[a - 1], g.counts[a] = s->box[a - 1];
        if (g.lengths[a] > 1) {
            g.weight += 2;
            g.places[g.neighbours++] = -step, g.places[g.neighbours++] = step;
        }
        step *= g.lengths[a] + 2;
    }
    return write_hints(&g, s->guide, 2 * s->tiles * s->wide, s->guides.buf, s->wide_sums, s->hints.buf, s->hints.len);
}

/* The mean of the slab's sizes, in 16ths, and of what was known. */
static void add_to_guide(Slabs *s, Py_ssize_t factor) {
    Py_ssize_t n = s->box[s->rank - 1], rows = s->tiles * s->box_points / n, at[MOST_AXES] = {0}, tile = 0;
    for (Py_ssize_t row = 0; row < rows; row++) {
        Py_ssize_t place = tile, size = tile;
        for (Py_ssize_t a = 0; a < s->rank; a++) {
            Py_ssize_t k = 1 + (a < s->rank - 1 ? at[a] : 0);
            place = place * (s->lengths[a] + 2) + k, size = size * (s->box[a] + 2) + k;
        }
        uint16_t *to = s->guide + place;
        const uint16_t *from = (const uint16_t *)s->sizes.buf + size;
        for (Py_ssize_t i = 0; i < n; i++) to[i] = (uint16_t)(to[i] + factor * from[i]);
        Py_ssize_t a = s->rank - 2;
        for (; a >= 0 && ++at[a] == s->box[a]; a--) at[a] = 0;
        tile += a < 0;
    }
}

static int do_slab(Slabs *s, Py_ssize_t slab, int *fits) {
    int fault = FINE;
    memset(s->sizes.buf, 0, (size_t)s->sizes.len);
    if (s->hints.len) *fits = make_hints(s);
    for (Py_ssize_t i = 0; i < s->count && *fits && fault == FINE; i++) fault = do_phase(s, s->phases + i, slab, fits);
    return fault;
}

/* Read or write all slabs; gives what is wrong with the stream, or -1 with an exception. */
static int do_slabs(Slabs *s, PyObject *slabs, const char *name) {
    int fits = PyTuple_Size(slabs) == s->slabs, fault = FINE;
    for (Py_ssize_t k = 0; k < s->slabs && fits && fault == FINE; k++) {
        PyObject *one = PyTuple_GetItem(slabs, k);
        int any = one != Py_None;
        if (any) fits = hold_slab(s, one, k > 0);
        if (fits) {
            Py_BEGIN_ALLOW_THREADS;
            if (any) fault = do_slab(s, k, &fits);
            if (k)
                for (Py_ssize_t i = 0; i < s->wide * s->tiles; i++) s->guide[i] >>= 1;
            if (any && fits && fault == FINE) add_to_guide(s, k ? 8 : 16);
            Py_END_ALLOW_THREADS;
        }
        release_phases(s);
    }
    if (!fits && !PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "%s: shapes and buffers do not fit", name);
    return PyErr_Occurred() ? -1 : fault;
}

static void release(Slabs *s) {
    free_room(s);
    Py_buffer *held[] = {&s->q, &s->under, &s->buckets, &s->classes, &s->guides, &s->all_contexts, &s->all_values, &s->ends};
    for (size_t k = 0; k < sizeof held / sizeof *held; k++) PyBuffer_Release(held[k]);
}

PyDoc_STRVAR(read_doc,
             "read(q, shape, under, buckets, slabs, classes, guides, stream)\n--\n\n"
             "Read coefficients slab by slab; give what is wrong with the stream (0: nothing).\n\n"
             "`q`: int64 (S, B, *tile), zeros, written. `shape`: (S, B, *tile). `under`: uint8 (S, *tile), which can have values.\n"
             "`buckets`: uint16 (S, *tile). `slabs`: for each the box of a tile that holds its values and, of each phase, starts,\n"
             "places, table, parts and base (for `phase_contexts`); None where it has none. `classes`, `guides`: uint16, as for\n"
             "`phase_contexts` and `hints`. `stream`: what `take` takes behind `narrow`.");

static PyObject *read_slabs(PyObject *self, PyObject *args) {
    Slabs s = {0};
    Reader reader;
    PyObject *shape, *slabs, *stream;
    Py_buffer b[STREAM_BUFFERS] = {{0}};
    int fault = -1;
    int fits = PyArg_ParseTuple(args, "w*Oy*y*O!y*y*O!", &s.q, &shape, &s.under, &s.buckets, &PyTuple_Type, &slabs, &s.classes, &s.guides,
                                &PyTuple_Type, &stream) &&
               PyArg_ParseTuple(stream, "y*y*y*y*y*y*w*w*", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7) &&
               read_shapes(&s, shape) && reader_of(b, &reader);
    s.reader = &reader;
    if (fits && make_room(&s)) {
        fault = do_slabs(&s, slabs, "read");
        leave_stream(&reader, b);
    }
    if (!fits && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "read: shapes and buffers do not fit");
    release(&s);
    for (int k = 0; k < STREAM_BUFFERS; k++) PyBuffer_Release(b + k);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(fault);
}

PyDoc_STRVAR(list_doc,
             "list(q, shape, under, buckets, slabs, classes, guides, values, contexts, ends)\n--\n\n"
             "List coefficients in the order in which `read` reads them, with their contexts; give how many steps they make.\n\n"
             "`q` to `guides`: as for `read`. `values`: int64, `contexts`: uint16, room for all. `ends`: int64, of each step.");

static PyObject *list_slabs(PyObject *self, PyObject *args) {
    Slabs s = {0};
    PyObject *shape, *slabs;
    int fits = PyArg_ParseTuple(args, "y*Oy*y*O!y*y*w*w*w*", &s.q, &shape, &s.under, &s.buckets, &PyTuple_Type, &slabs, &s.classes,
                                &s.guides, &s.all_values, &s.all_contexts, &s.ends) &&
               read_shapes(&s, shape) && s.all_contexts.len / 2 == s.all_values.len / 8;
    if (fits && make_room(&s)) do_slabs(&s, slabs, "list");
    if (!fits && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "list: shapes and buffers do not fit");
    release(&s);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(s.steps);
}

static PyMethodDef methods[] = {
    {"read", read_slabs, METH_VARARGS, read_doc}, {"list", list_slabs, METH_VARARGS, list_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_slabs", "Compiled slabs of coefficients.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__slabs(void) { return PyModule_Create(&module); }
