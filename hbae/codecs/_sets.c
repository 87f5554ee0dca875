/* SPDX-License-Identifier: MIT
 *
 * A set of variables of a wavelet band, read phase by phase from a stream: the steps of hbae/codecs/sets.py in one call.
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
    Py_buffer sizes, hints, classes, grid, firsts, own, limits, stream[STREAM_BUFFERS];
    Around around;
    Spot spot;
    Reader reader;
    Phase *phases;
    Py_ssize_t count, variables, most, row;
    int related;
    /* Room for the largest phase: a row of sums, contexts, what is expected, values sorted and in order; numbers of contexts. */
    uint16_t *sums, *contexts;
    Expected told;
    void *sorted, *values;
    Py_ssize_t *room;
} Set;

/* Hold and read the phases, each with the places around its points (none for an empty tuple); `count` of their tables are held
   then. */
static int hold_phases(PyObject *phases, PyObject *around, PyObject *shape, Set *s) {
    Py_ssize_t n = PyTuple_Check(phases) ? PyTuple_Size(phases) : 0, places_of = PyTuple_Size(around);
    if (n < 1 || n > MOST_PHASES || (places_of && places_of != n)) return 0;
    s->phases = calloc((size_t)n, sizeof(Phase));
    if (!s->phases) {
        PyErr_NoMemory();
        return 0;
    }
    for (; s->count < n; s->count++) {
        Phase *p = s->phases + s->count;
        p->known = (Known){&s->sizes, &s->hints, .classes = &s->classes, .variables = s->variables, .related = s->related};
        if (!hold_phase(PyTuple_GetItem(phases, s->count), shape, &p->parity, &p->known, &p->table)) return 0;
        if ((places_of && !read_around(PyTuple_GetItem(around, s->count), &p->around)) ||
            p->parity.points > PY_SSIZE_T_MAX / 64 / s->variables) {
            s->count++;
            return 0;
        }
        Py_ssize_t points = p->parity.points * s->variables, row = p->parity.counts[p->parity.rank - 1];
        s->most = points > s->most ? points : s->most;
        s->row = row > s->row ? row : s->row;
    }
    return 1;
}

static int make_room(Set *s) {
    size_t most = (size_t)s->most;
    s->sums = malloc((size_t)s->row * sizeof(uint16_t));
    s->contexts = malloc(most * sizeof(uint16_t));
    s->told.codes = malloc(most);
    s->told.values = calloc(most, sizeof(int16_t));
    s->sorted = malloc(most * sizeof(int64_t));
    s->values = malloc(most * sizeof(int64_t));
    s->room = malloc((size_t)(2 * s->reader.num + 1) * sizeof(Py_ssize_t));
    if (s->sums && s->contexts && s->told.codes && s->told.values && s->sorted && s->values && s->room) return 1;
    PyErr_NoMemory();
    return 0;
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
    *fits = *fits && write_contexts(&p->known, &p->parity, told ? told->codes : NULL, s->sums, s->contexts);
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
           (s.related || !s.around.leaders) && reader_of(b, &s.reader) && hold_phases(phases, places, shape, &s) &&
           read_tuple(steps, s.phases->parity.rank, s.spot.steps) && (!s.around.leaders || hold_around(leads, told, &s.around));
    int fault = FINE;
    if (fits && make_room(&s)) {
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t i = 0; i < s.count && fits && fault == FINE; i++) fault = read_phase(&s, s.phases + i, &fits);
        leave_stream(&s.reader, b);
        Py_END_ALLOW_THREADS;
    }
    if (!fits && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "read: shapes and buffers do not fit");
    void *rooms[] = {s.sums, s.contexts, s.told.codes, s.told.values, s.sorted, s.values, s.room};
    for (size_t k = 0; k < sizeof rooms / sizeof *rooms; k++) free(rooms[k]);
    while (s.count) PyBuffer_Release(&s.phases[--s.count].table);
    free(s.phases);
    release_around(&s.around);
    Py_buffer *held[] = {&s.sizes, &s.hints, &s.classes, &s.grid, &s.firsts, &s.own, &s.limits};
    for (size_t k = 0; k < sizeof held / sizeof *held; k++) PyBuffer_Release(held[k]);
    for (int k = 0; k < STREAM_BUFFERS; k++) PyBuffer_Release(b + k);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(fault);
}

static PyMethodDef methods[] = {{"read", read_set, METH_VARARGS, read_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_sets", "Compiled sets of variables.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__sets(void) { return PyModule_Create(&module); }
