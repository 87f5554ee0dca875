/* SPDX-License-Identifier: MIT
 *
 * A set of variables of a wavelet band, or all bands, set by set, read phase by phase from a stream: the steps of
 * hbae/codecs/sets.py in one call.
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

/* What is known of a band once it is read: how many of the variables it has, where each is among them (-1: nowhere), their sizes. */
typedef struct {
    Py_ssize_t rows, rank, shape[MOST_AXES], points;
    int64_t *places;
    uint16_t *sizes;
} Settled;

/* A band, set by set: phases of sets that something is told of and of others, what other bands tell, the guide and its classes,
   and sizes (of `wide` points) with a border while a set is read. `firsts`: where each of its variables lies; `there`: where
   they are among those of each band that tells of it. */
typedef struct {
    Set set;
    Phases bare, hinted;
    Views *views;
    const Py_buffer *guide_classes;
    Py_ssize_t wide, width, largest;
    int64_t *firsts, *there;
    uint16_t *known, *hints, *guide;
    uint32_t *sums;
    uint8_t *live_hints;
} Band;

/* All bands of a chunk: their descriptions, which of the variables each has, buffers of a grid and a stream. */
typedef struct {
    PyObject *list;
    Py_ssize_t count, variables, stride;
    Py_buffer live, grid, classes, guide_classes, stream[STREAM_BUFFERS];
    Reader reader;
    Settled *settled;
} Bands;

/* The largest of sets of 1, 2, 4, ... variables. */
static Py_ssize_t largest_set(Py_ssize_t variables) {
    Py_ssize_t most = 1;
    for (Py_ssize_t begin = 0, size = 1; begin < variables; begin += size, size *= 2) {
        Py_ssize_t count = variables - begin < size ? variables - begin : size;
        most = count > most ? count : most;
    }
    return most;
}

static int make_band_room(Band *b, Py_ssize_t points) {
    size_t all = (size_t)points, largest = (size_t)b->largest;
    b->known = malloc(largest * (size_t)b->wide * sizeof(uint16_t));
    b->hints = malloc(largest * all * sizeof(uint16_t));
    b->guide = malloc(all * sizeof(uint16_t));
    b->sums = malloc(all * sizeof(uint32_t));
    b->live_hints = malloc(largest * all / (size_t)(b->width - 2));
    b->set.live_hints = b->live_hints;
    if (b->known && b->hints && b->guide && b->sums && b->live_hints) return 1;
    PyErr_NoMemory();
    return 0;
}

static void release_band(Band *b) {
    leave_room(&b->set);
    void *rooms[] = {b->firsts, b->there, b->known, b->hints, b->guide, b->sums, b->live_hints};
    for (size_t k = 0; k < sizeof rooms / sizeof *rooms; k++) free(rooms[k]);
    release_phases(&b->bare);
    release_phases(&b->hinted);
    release_views(b->views);
}

static int read_sets(Band *b, Settled *own, int *fits) {
    int fault = FINE;
    Set *s = &b->set;
    for (Py_ssize_t first = 0, size = 1; first < own->rows && *fits && fault == FINE; first += size, size *= 2) {
        Py_ssize_t count = own->rows - first < size ? own->rows - first : size;
        const uint16_t *guide = first ? b->guide : NULL;
        int hinted = guide || b->views->num_views;
        if (hinted) join_views(b->views, first, count, guide, b->guide_classes->buf, b->hints, b->live_hints);
        memset(b->known, 0, (size_t)(count * b->wide) * sizeof(uint16_t));
        memset(s->live, 0, (size_t)(count * b->wide / b->width));
        s->variables = count;
        s->sizes.buf = b->known, s->sizes.len = count * b->wide * 2;
        s->hints.buf = b->hints, s->hints.len = hinted ? count * own->points * 2 : 0;
        s->firsts.buf = b->firsts + first, s->firsts.len = count * 8;
        fault = read_phases(s, hinted ? &b->hinted : &b->bare, fits);
        settle_sizes(b->known, s->live, own->rank, own->shape, count, guide, b->sums, own->sizes + first * own->points, b->guide);
    }
    return fault;
}

/* Note which variables band `i` has; gives whether there is room for that. */
static int find_rows(const Bands *all, Py_ssize_t i, Settled *own) {
    const uint8_t *live = (const uint8_t *)all->live.buf + i * all->variables;
    own->places = malloc((size_t)all->variables * sizeof(int64_t));
    if (!own->places) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t v = 0; v < all->variables; v++) own->places[v] = live[v] ? own->rows++ : -1;
    return 1;
}

/* Point view `n` of band `i` at what is known of another band (nothing, where that has no variables). */
static int see_band(const Bands *all, Py_ssize_t i, PyObject *one, Py_ssize_t n, Band *b) {
    const Settled *own = all->settled + i;
    View *v = b->views->views + n;
    PyObject *ratios;
    Py_ssize_t other;
    if (!PyTuple_Check(one) || !PyArg_ParseTuple(one, "nOn", &other, &ratios, &v->factor) || other < 0 || other >= i || v->factor < 0 ||
        v->factor > 16 || !read_tuple(ratios, own->rank, v->ratios))
        return 0;
    const Settled *seen = all->settled + other;
    int64_t *there = b->there + n * own->rows;
    if (seen->rows && seen->rank != own->rank) return 0;
    memcpy(v->shape, seen->rows ? seen->shape : own->shape, sizeof v->shape);
    v->sizes.buf = seen->sizes, v->sizes.len = 2 * seen->points * seen->rows;
    v->there.buf = there, v->there.len = 8 * own->rows;
    for (Py_ssize_t k = 0; k < all->variables; k++)
        if (own->places[k] >= 0) there[own->places[k]] = seen->rows ? seen->places[k] : -1;
    return 1;
}

/* Whether a band of that shape lies in a variable's grid; its steps are read. */
static int lies_in(const Views *k, PyObject *steps, Py_ssize_t first, Py_ssize_t places, Py_ssize_t *out) {
    if (!read_tuple(steps, k->rank, out) || first < 0 || first >= places) return 0;
    Py_ssize_t left = places - 1 - first;
    for (Py_ssize_t a = 0; a < k->rank; a++) {
        if (out[a] < 1 || k->shape[a] - 1 > left / out[a]) return 0;
        left -= (k->shape[a] - 1) * out[a];
    }
    return 1;
}

/* Hold what is needed to read band `i`, and make room for its sizes. */
static int hold_band(Bands *all, Py_ssize_t i, Band *b) {
    Settled *own = all->settled + i;
    Set *s = &b->set;
    PyObject *shape, *steps, *bare, *hinted, *told;
    Py_ssize_t first;
    PyObject *one = PyTuple_GetItem(all->list, i);
    if (!PyTuple_Check(one) || !PyArg_ParseTuple(one, "nOOOOO!", &first, &shape, &steps, &bare, &hinted, &PyTuple_Type, &told)) return 0;
    Py_ssize_t num = PyTuple_Size(told), siblings = 0;
    if (!(b->views = make_views(shape, num)) || !lies_in(b->views, steps, first, all->stride, s->spot.steps)) return 0;
    own->rank = b->views->rank, own->points = b->views->all, b->wide = 1;
    memcpy(own->shape, b->views->shape, sizeof own->shape);
    b->firsts = malloc((size_t)own->rows * sizeof(int64_t));
    b->there = malloc((size_t)((num + 1) * own->rows) * sizeof(int64_t));
    if (!b->firsts || !b->there) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t v = 0; v < all->variables; v++)
        if (own->places[v] >= 0) b->firsts[own->places[v]] = v * all->stride + first;
    for (; b->views->num_views < num; b->views->num_views++) {
        if (!see_band(all, i, PyTuple_GetItem(told, b->views->num_views), b->views->num_views, b)) return 0;
        siblings += !b->views->views[b->views->num_views].factor;
    }
    b->views->num_siblings = (int)siblings;
    b->guide_classes = &all->guide_classes;
    b->largest = s->variables = largest_set(own->rows);
    s->classes = all->classes, s->grid = all->grid, s->reader = all->reader;
    s->spot.sizes = &s->sizes, s->spot.grid = &s->grid, s->spot.firsts = &s->firsts;
    PyObject *none = PyTuple_New(0);
    int fits = none && check_views(b->views, own->rows) && (num || hold_phases(bare, none, shape, s, &b->bare)) &&
               (!(num || own->rows > 1) || hold_phases(hinted, none, shape, s, &b->hinted));
    Py_XDECREF(none);
    if (!fits) return 0;
    /* With its border a band was found to be small enough to count its bytes. */
    for (Py_ssize_t a = 0; a < own->rank; a++) b->wide *= own->shape[a] + 2;
    b->width = own->shape[own->rank - 1] + 2;
    if (b->wide > PY_SSIZE_T_MAX / 64 / own->rows) return 0;
    own->sizes = malloc((size_t)(own->points * own->rows) * sizeof(uint16_t));
    if (!own->sizes) PyErr_NoMemory();
    return own->sizes && make_room(s, b->largest * b->wide / b->width) && make_band_room(b, own->points);
}

/* Read band `i`; gives what is wrong with the stream, and clears `fits` where shapes and buffers do not fit. */
static int read_one(Bands *all, Py_ssize_t i, int *fits) {
    int fault = FINE;
    Settled *own = all->settled + i;
    *fits = find_rows(all, i, own);
    if (!*fits || !own->rows) return fault;
    Band *b = calloc(1, sizeof(Band));
    if (!b) PyErr_NoMemory();
    *fits = b && hold_band(all, i, b);
    if (*fits) {
        Py_BEGIN_ALLOW_THREADS;
        fault = read_sets(b, own, fits);
        Py_END_ALLOW_THREADS;
        all->reader = b->set.reader;
    }
    if (b) release_band(b);
    free(b);
    return fault;
}

PyDoc_STRVAR(bands_doc,
             "read_bands(bands, live, grid, classes, guide_classes, stream)\n--\n\n"
             "Read the integers of all bands into a grid, set by set (1, 2, 4, ... variables) where variables are not related; give\n"
             "what is wrong with the stream (0: nothing).\n\n"
             "`bands`: of each the first place in a variable's grid, shape, steps, phases where nothing is told of a set and where\n"
             "something is, and the bands before that tell of it: number, ratios by axis, factor in 16ths (0: siblings, the last\n"
             "ones). `live`: uint8 (bands, V), whether a variable has anything there. `grid`: float64 (V, ...), zeros. `classes`,\n"
             "`stream`: as for `read`. `guide_classes`: as for `join`.");

static PyObject *read_bands(PyObject *self, PyObject *args) {
    Bands all = {0};
    PyObject *stream;
    Py_buffer *b = all.stream;
    int fault = FINE, fits = PyArg_ParseTuple(args, "O!y*w*y*y*O!", &PyTuple_Type, &all.list, &all.live, &all.grid, &all.classes,
                                              &all.guide_classes, &PyTuple_Type, &stream) &&
                             PyArg_ParseTuple(stream, "y*y*y*y*y*y*w*w*", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7);
    all.count = fits ? PyTuple_Size(all.list) : 0;
    all.variables = all.count ? all.live.len / all.count : 0;
    fits = fits && all.variables >= 1 && all.live.len == all.count * all.variables && all.grid.len % (8 * all.variables) == 0 &&
           all.guide_classes.len == (16 * CLIP + 1) * 2 && reader_of(b, &all.reader);
    all.stride = fits ? all.grid.len / 8 / all.variables : 0;
    if (fits && !(all.settled = calloc((size_t)all.count, sizeof(Settled)))) PyErr_NoMemory();
    fits = fits && all.settled;
    for (Py_ssize_t i = 0; fits && fault == FINE && i < all.count; i++) fault = read_one(&all, i, &fits);
    if (fits) leave_stream(&all.reader, b);
    if (!fits && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "read_bands: shapes and buffers do not fit");
    for (Py_ssize_t i = 0; all.settled && i < all.count; i++) {
        free(all.settled[i].places);
        free(all.settled[i].sizes);
    }
    free(all.settled);
    Py_buffer *held[] = {&all.live, &all.grid, &all.classes, &all.guide_classes};
    for (size_t k = 0; k < sizeof held / sizeof *held; k++) PyBuffer_Release(held[k]);
    for (int k = 0; k < STREAM_BUFFERS; k++) PyBuffer_Release(b + k);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(fault);
}

static PyMethodDef methods[] = {
    {"read", read_set, METH_VARARGS, read_doc}, {"read_bands", read_bands, METH_VARARGS, bands_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_sets", "Compiled sets of variables.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__sets(void) { return PyModule_Create(&module); }
