/* SPDX-License-Identifier: MIT
 *
 * A set of variables of a wavelet band, or all sets of one, read phase by phase from a stream: the steps of hbae/codecs/sets.py in
 * one call.
 */
#include "_sets.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    Parity parity;
    Known known;
    Places around;
    Py_buffer table;
} Phase;

typedef struct {
    Phase *phases;
    Py_ssize_t count;
} Phases;

typedef struct {
    Py_buffer sizes, hints, classes, grid, firsts, own, limits, stream[STREAM_BUFFERS];
    Around around;
    Spot spot;
    Reader reader;
    Py_ssize_t variables, most, row;
    int related;
    /* Of rows of sizes with their border and of hints (or NULL), whether any is not 0. */
    uint8_t *live, *live_room;
    const uint8_t *live_hints;
    /* Room for the largest phase: a row of sums, contexts, what is expected, values sorted and in order; numbers of contexts. */
    uint16_t *sums, *contexts;
    Expected told;
    void *sorted, *values;
    Py_ssize_t *room;
} Set;

/* Hold and read the phases, each with the places around its points (none for an empty tuple); `count` of their tables are held
   then. */
static int hold_phases(PyObject *phases, PyObject *around, PyObject *shape, Set *s, Phases *list) {
    Py_ssize_t n = PyTuple_Check(phases) ? PyTuple_Size(phases) : 0, places_of = PyTuple_Size(around);
    if (n < 1 || n > MOST_PHASES || (places_of && places_of != n)) return 0;
    list->phases = calloc((size_t)n, sizeof(Phase));
    if (!list->phases) {
        PyErr_NoMemory();
        return 0;
    }
    for (; list->count < n; list->count++) {
        Phase *p = list->phases + list->count;
        p->known = (Known){&s->sizes, &s->hints, .classes = &s->classes, .variables = s->variables, .related = s->related};
        if (!hold_phase(PyTuple_GetItem(phases, list->count), shape, &p->parity, &p->known, &p->table)) return 0;
        if ((places_of && !read_around(PyTuple_GetItem(around, list->count), &p->around)) ||
            p->parity.points > PY_SSIZE_T_MAX / 64 / s->variables) {
            list->count++;
            return 0;
        }
        Py_ssize_t points = p->parity.points * s->variables, row = p->parity.counts[p->parity.rank - 1];
        s->most = points > s->most ? points : s->most;
        s->row = row > s->row ? row : s->row;
    }
    return 1;
}

static void release_phases(Phases *list) {
    while (list->count) PyBuffer_Release(&list->phases[--list->count].table);
    free(list->phases);
}

static int make_room(Set *s, Py_ssize_t rows) {
    size_t most = (size_t)s->most;
    /* Neighbours of a size at an edge may be said to lie in a row that is not there. */
    s->live_room = calloc((size_t)rows + 2, 1);
    s->live = s->spot.live = s->live_room ? s->live_room + 1 : NULL;
    s->sums = malloc((size_t)s->row * sizeof(uint16_t));
    s->contexts = malloc(most * sizeof(uint16_t));
    s->told.codes = malloc(most);
    s->told.values = calloc(most, sizeof(int16_t));
    s->sorted = malloc(most * sizeof(int64_t));
    s->values = malloc(most * sizeof(int64_t));
    s->room = malloc((size_t)(2 * s->reader.num + 1) * sizeof(Py_ssize_t));
    if (s->live && s->sums && s->contexts && s->told.codes && s->told.values && s->sorted && s->values && s->room) return 1;
    PyErr_NoMemory();
    return 0;
}

static void leave_room(Set *s) {
    void *rooms[] = {s->live_room, s->sums, s->contexts, s->told.codes, s->told.values, s->sorted, s->values, s->room};
    for (size_t k = 0; k < sizeof rooms / sizeof *rooms; k++) free(rooms[k]);
}

/* Read one phase; gives what is wrong with the stream. `fits` is cleared where shapes and buffers do not fit. */
static int read_phase(Set *s, const Phase *p, int *fits) {
    Py_ssize_t n = p->parity.points * s->variables;
    Expected *told = s->around.leaders && p->around.count ? &s->told : NULL;
    if (told) {
        memset(told->codes, 0, (size_t)n);
        told->any = 0;
        *fits = expect_values(&s->around, &p->around, &p->parity, s->variables, told);
    }
    Known known = p->known;
    known.variables = s->variables, known.live = s->live, known.live_hints = s->live_hints;
    *fits = *fits && write_contexts(&known, &p->parity, told ? told->codes : NULL, s->sums, s->contexts);
    if (!*fits) return FINE;
    int narrow = 1, fault = read_values(&s->reader, s->contexts, n, narrow, s->room, s->sorted, s->values);
    if (fault == TOO_WIDE) {
        narrow = 0;
        fault = read_values(&s->reader, s->contexts, n, narrow, s->room, s->sorted, s->values);
    }
    if (fault != FINE) return fault;
    if (told) narrow = join_values(s->values, told, n, narrow);
    int any = told && told->any;
    *fits = move_values(&s->spot, &p->parity, s->values, any ? told->values : NULL, narrow, 1) &&
            (!s->related || note_values(&s->own, &p->parity, s->around.first, s->variables, s->values, narrow));
    if (any) memset(told->values, 0, (size_t)n * sizeof(int16_t));
    return FINE;
}

static int read_phases(Set *s, const Phases *list, int *fits) {
    int fault = FINE;
    for (Py_ssize_t i = 0; i < list->count && *fits && fault == FINE; i++) fault = read_phase(s, list->phases + i, fits);
    return fault;
}

PyDoc_STRVAR(read_doc,
             "read(sizes, shape, hints, classes, phases, spot, related, around, places, stream)\n--\n\n"
             "Read the integers of a set of variables of a band into a grid; give what is wrong with the stream (0: nothing).\n\n"
             "`sizes`: uint16 (V, *shape + 2), zeros, written. `hints`, `classes`: as for `phase_contexts`. `phases`: starts, places,\n"
             "table, parts and base (for `phase_contexts`) of each. `spot`: grid, firsts, steps as for `move`.\n"
             "`around`: where variables are `related`, what `note` writes to; leaders, variables to tell of, how many leaders (may be\n"
             "0), first column, limits and `off_from`, and the `places` of each phase, or none, as for `expect`. `stream`: what\n"
             "`take` takes behind `narrow`.");

static PyObject *read_set(PyObject *self, PyObject *args) {
    Set s = {0};
    Phases list = {0};
    PyObject *shape, *phases, *spot, *around, *places, *stream, *steps, *leads, *told;
    Py_buffer *b = s.stream;
    /* Tuples one by one: there is no room for more buffers in inner ones than the outer one has places. */
    int fits = PyArg_ParseTuple(args, "w*Oy*y*OO!pO!O!O!", &s.sizes, &shape, &s.hints, &s.classes, &phases, &PyTuple_Type, &spot,
                                &s.related, &PyTuple_Type, &around, &PyTuple_Type, &places, &PyTuple_Type, &stream) &&
               PyArg_ParseTuple(spot, "w*y*O", &s.grid, &s.firsts, &steps) &&
               PyArg_ParseTuple(around, "w*OOiny*f", &s.own, &leads, &told, &s.around.leaders, &s.around.first, &s.limits,
                                &s.around.off_from) &&
               PyArg_ParseTuple(stream, "y*y*y*y*y*y*w*w*", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7);
    s.variables = s.firsts.len / 8;
    s.around.limits = &s.limits;
    s.spot.sizes = &s.sizes, s.spot.grid = &s.grid, s.spot.firsts = &s.firsts;
    fits = fits && s.firsts.len == 8 * s.variables && s.variables >= 1 && s.around.leaders >= 0 &&
           (s.related || !s.around.leaders) && reader_of(b, &s.reader) && hold_phases(phases, places, shape, &s, &list) &&
           read_tuple(steps, list.phases->parity.rank, s.spot.steps) && (!s.around.leaders || hold_around(leads, told, &s.around));
    int fault = FINE;
    /* Places of rows that write_contexts and move_values have not refused are places of these. */
    const Parity *p = fits ? &list.phases->parity : NULL;
    if (fits && make_room(&s, s.sizes.len / 2 / (p->lengths[p->rank - 1] + 2))) {
        Py_BEGIN_ALLOW_THREADS;
        fault = read_phases(&s, &list, &fits);
        leave_stream(&s.reader, b);
        Py_END_ALLOW_THREADS;
    }
    if (!fits && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "read: shapes and buffers do not fit");
    leave_room(&s);
    release_phases(&list);
    release_around(&s.around);
    Py_buffer *held[] = {&s.sizes, &s.hints, &s.classes, &s.grid, &s.firsts, &s.own, &s.limits};
    for (size_t k = 0; k < sizeof held / sizeof *held; k++) PyBuffer_Release(held[k]);
    for (int k = 0; k < STREAM_BUFFERS; k++) PyBuffer_Release(b + k);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(fault);
}

/* A band, set by set: phases of sets that something is told of and of others, what other bands tell, the guide and its classes,
   sizes (uint16, V variables, of `points`), with a border in `known` (of `wide` points) while a set is read. */
typedef struct {
    Set set;
    Phases bare, hinted;
    Views *views;
    Py_buffer sizes, guide_classes, firsts;
    Py_ssize_t points, wide, width, largest;
    uint16_t *known, *hints, *guide;
    uint32_t *sums;
    uint8_t *live_hints;
} Band;

/* The largest of sets of 1, 2, 4, ... variables. */
static Py_ssize_t largest_set(Py_ssize_t variables) {
    Py_ssize_t most = 1;
    for (Py_ssize_t begin = 0, size = 1; begin < variables; begin += size, size *= 2) {
        Py_ssize_t count = variables - begin < size ? variables - begin : size;
        most = count > most ? count : most;
    }
    return most;
}

static int make_band_room(Band *b) {
    size_t points = (size_t)b->points, largest = (size_t)b->largest;
    b->known = malloc(largest * (size_t)b->wide * sizeof(uint16_t));
    b->hints = malloc(largest * points * sizeof(uint16_t));
    b->guide = malloc(points * sizeof(uint16_t));
    b->sums = malloc(points * sizeof(uint32_t));
    b->live_hints = malloc(largest * points / (size_t)(b->width - 2));
    b->set.live_hints = b->live_hints;
    if (b->known && b->hints && b->guide && b->sums && b->live_hints) return 1;
    PyErr_NoMemory();
    return 0;
}

static int read_sets(Band *b, Py_ssize_t variables, int *fits) {
    int fault = FINE;
    Set *s = &b->set;
    for (Py_ssize_t first = 0, size = 1; first < variables && *fits && fault == FINE; first += size, size *= 2) {
        Py_ssize_t count = variables - first < size ? variables - first : size;
        const uint16_t *guide = first ? b->guide : NULL;
        int hinted = guide || b->views->num_views;
        if (hinted) join_views(b->views, first, count, guide, b->guide_classes.buf, b->hints, b->live_hints);
        memset(b->known, 0, (size_t)(count * b->wide) * sizeof(uint16_t));
        memset(s->live, 0, (size_t)(count * b->wide / b->width));
        s->variables = count;
        s->sizes.buf = b->known, s->sizes.len = count * b->wide * 2;
        s->hints.buf = b->hints, s->hints.len = hinted ? count * b->points * 2 : 0;
        s->firsts.buf = (int64_t *)b->firsts.buf + first, s->firsts.len = count * 8;
        Phases *list = hinted ? &b->hinted : &b->bare;
        fault = read_phases(s, list, fits);
        const Parity *p = &list->phases->parity;
        settle_sizes(b->known, s->live, p->rank, p->lengths, count, guide, b->sums,
                     (uint16_t *)b->sizes.buf + first * b->points, b->guide);
    }
    return fault;
}

PyDoc_STRVAR(band_doc,
             "read_band(views, num_siblings, shape, guide_classes, classes, bare, hinted, spot, sizes, stream)\n--\n\n"
             "Read the integers of all sets (1, 2, 4, ... variables) of a band into a grid; give what is wrong with the stream.\n\n"
             "`views`, `num_siblings`, `guide_classes`: as for `join`. `classes`, `spot`, `stream`: as for `read`. `bare`, `hinted`:\n"
             "phases where nothing is told of a set, and where something is. `sizes`: uint16 (V, *shape), written.");

static PyObject *read_band(PyObject *self, PyObject *args) {
    Band band = {0};
    Set *s = &band.set;
    PyObject *views, *shape, *bare, *hinted, *spot, *stream, *steps, *none = PyTuple_New(0);
    Py_buffer *b = s->stream;
    int siblings;
    int fits = none && PyArg_ParseTuple(args, "OiOy*y*OOO!w*O!", &views, &siblings, &shape, &band.guide_classes, &s->classes, &bare,
                                        &hinted, &PyTuple_Type, &spot, &band.sizes, &PyTuple_Type, &stream) &&
               PyArg_ParseTuple(spot, "w*y*O", &s->grid, &band.firsts, &steps) &&
               PyArg_ParseTuple(stream, "y*y*y*y*y*y*w*w*", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7);
    Py_ssize_t variables = band.firsts.len / 8;
    band.largest = s->variables = largest_set(variables);
    s->spot.sizes = &s->sizes, s->spot.grid = &s->grid, s->spot.firsts = &s->firsts;
    fits = fits && band.firsts.len == 8 * variables && variables >= 1 && (band.views = hold_views(views, siblings, shape)) &&
           check_views(band.views, variables) && band.guide_classes.len == (16 * CLIP + 1) * 2 && reader_of(b, &s->reader) &&
           (band.views->num_views || hold_phases(bare, none, shape, s, &band.bare)) &&
           (!(band.views->num_views || variables > 1) || hold_phases(hinted, none, shape, s, &band.hinted)) &&
           read_tuple(steps, band.views->rank, s->spot.steps);
    if (fits) {
        band.points = band.views->all, band.wide = 1;
        /* With its border a band was found to be small enough to count its bytes. */
        for (Py_ssize_t a = 0; a < band.views->rank; a++) band.wide *= band.views->shape[a] + 2;
        band.width = band.views->shape[band.views->rank - 1] + 2;
        fits = band.wide <= PY_SSIZE_T_MAX / 64 / variables && band.sizes.len == 2 * band.points * variables;
    }
    int fault = FINE;
    if (fits && make_room(s, band.largest * band.wide / band.width) && make_band_room(&band)) {
        Py_BEGIN_ALLOW_THREADS;
        fault = read_sets(&band, variables, &fits);
        leave_stream(&s->reader, b);
        Py_END_ALLOW_THREADS;
    }
    if (!fits && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "read_band: shapes and buffers do not fit");
    leave_room(s);
    void *rooms[] = {band.known, band.hints, band.guide, band.sums, band.live_hints};
    for (size_t k = 0; k < sizeof rooms / sizeof *rooms; k++) free(rooms[k]);
    release_phases(&band.bare);
    release_phases(&band.hinted);
    release_views(band.views);
    Py_buffer *held[] = {&band.sizes, &band.guide_classes, &band.firsts, &s->classes, &s->grid};
    for (size_t k = 0; k < sizeof held / sizeof *held; k++) PyBuffer_Release(held[k]);
    for (int k = 0; k < STREAM_BUFFERS; k++) PyBuffer_Release(b + k);
    Py_XDECREF(none);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(fault);
}

static PyMethodDef methods[] = {
    {"read", read_set, METH_VARARGS, read_doc}, {"read_band", read_band, METH_VARARGS, band_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_sets", "Compiled sets of variables.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__sets(void) { return PyModule_Create(&module); }
