/* SPDX-License-Identifier: MIT
 *
 * One phase of a wavelet band or of a slab of coefficients: contexts from the sizes of known neighbours and from hints, and
 * its values moved between a list and the grid. Integers only, the same as the NumPy code in hbae/codecs/neighbours.py.
 */
#include "_sets.h"

#include <stdlib.h>
#include <string.h>

/* Lowest bits of hints: the class of the guide. */
#define GUIDE_BITS 3

typedef struct {
    const uint16_t *near, *hints, *classes;
    const uint32_t *table;
    uint16_t *out, *sums;
    Py_ssize_t rank, counts[MOST_AXES + 1], near_steps[MOST_AXES + 1], hint_steps[MOST_AXES + 1], neighbours;
    const Py_ssize_t *places;
    /* Of rows: from one index to the next, with and without the border; those of neighbours, as steps from a point's own. */
    Py_ssize_t near_lines[MOST_AXES + 1], hint_lines[MOST_AXES + 1], near_rows, rows[MOST_NEIGHBOURS];
    uint32_t parts;
    uint16_t base;
    /* What is told in the place of the guide, if anything (no values: all in class 0). */
    const uint8_t *told;
    int related;
} Phase;

/* Sums of every second size at all places. Those between are added, too, where they are there, and left: vectors begin anywhere. */
#define SUM_BLOCK(SIZE)                                                                                            \
    for (; n - i > SIZE; i += SIZE) {                                                                              \
        uint16_t all[2 * SIZE] = {0};                                                                              \
        for (Py_ssize_t k = 0; k < neighbours; k++)                                                                \
            for (int j = 0; j < 2 * SIZE; j++) all[j] = (uint16_t)(all[j] + near[places[k] + 2 * i + j]);          \
        for (int j = 0; j < SIZE; j++) sums[i + j] = all[2 * j];                                                   \
    }
FOR_ANY_UNIT static void sum_sizes(uint16_t *sums, const uint16_t *near, const Py_ssize_t *places, Py_ssize_t neighbours, Py_ssize_t n) {
    Py_ssize_t i = 0;
    SUM_BLOCK(16)
    SUM_BLOCK(4)
    for (; i < n; i++) {
        uint16_t all = 0;
        for (Py_ssize_t k = 0; k < neighbours; k++) all = (uint16_t)(all + near[places[k] + 2 * i]);
        sums[i] = all;
    }
}

/* Sizes and hints keep these limits; whatever they hold, nothing outside the tables is read. */
static inline uint16_t size_context(const Phase *p, uint32_t sum, uint32_t hint) {
    uint32_t most = CLIP * (uint32_t)p->neighbours;
    uint32_t expected = (p->table[sum < most ? sum : most] + (hint >> GUIDE_BITS) * p->parts) >> 4;
    return (uint16_t)(p->classes[expected < 16 * CLIP ? expected : 16 * CLIP] + p->base);
}

/* Whether eight sums are zero, and the hints for them (and those between). */
static inline int nothing_near(const uint16_t *sums, const uint16_t *hints) {
    uint64_t x[6] = {0};
    memcpy(x, sums, 16);
    if (hints) memcpy(x + 2, hints, 30);
    return !(x[0] | x[1] | x[2] | x[3] | x[4] | x[5]);
}

/* Whether any row of neighbours has a size that is not 0. */
static int any_near(const Phase *p, const uint8_t *live) {
    int any = !live;
    for (Py_ssize_t k = 0; live && k < p->near_rows; k++) any |= live[p->rows[k]];
    return any;
}

/* One row: sizes and hints (or NULL) of its points, and of rows whether any is not 0 (or NULL). */
static void row(Phase *p, const uint16_t *near, const uint16_t *hints, const uint8_t *live, const uint8_t *live_hints) {
    Py_ssize_t n = p->counts[p->rank - 1], i = 0;
    uint16_t nothing = size_context(p, 0, 0);
    int sized = any_near(p, live), hinted = hints && (!live_hints || *live_hints);
    if (!sized && !hinted)
        for (; i < n; i++) p->out[i] = nothing;
    else if (!sized)
        memset(p->sums, 0, (size_t)n * sizeof(uint16_t));
    if (sized) sum_sizes(p->sums, near, p->places, p->neighbours, n);
    for (Py_ssize_t end; i < n; i = end) {
        end = n - i < 8 ? n : i + 8;
        if (end - i == 8 && nothing_near(p->sums + i, hints ? hints + 2 * i : NULL))
            for (; i < end; i++) p->out[i] = nothing;
        else if (hints && !p->related)
            for (; i < end; i++)
                p->out[i] = (uint16_t)(size_context(p, p->sums[i], hints[2 * i]) + (hints[2 * i] & ((1 << GUIDE_BITS) - 1)));
        else
            for (; i < end; i++) p->out[i] = size_context(p, p->sums[i], hints ? hints[2 * i] : 0);
    }
    if (p->told) {
        for (Py_ssize_t i = 0; i < n; i++) p->out[i] = (uint16_t)(p->out[i] + (p->told[i] >> 1));
        p->told += n;
    }
    p->out += n;
}

static void walk(Phase *p, Py_ssize_t axis, const uint16_t *near, const uint16_t *hints, const uint8_t *live, const uint8_t *live_hints) {
    if (axis == p->rank - 1) {
        row(p, near, hints, live, live_hints);
        return;
    }
    for (Py_ssize_t i = 0; i < p->counts[axis]; i++) {
        walk(p, axis + 1, near, hints, live, live_hints);
        near += p->near_steps[axis];
        if (hints) hints += p->hint_steps[axis];
        if (live) live += p->near_lines[axis];
        if (live_hints) live_hints += p->hint_lines[axis];
    }
}

int write_contexts(const Known *k, const Parity *q, const uint8_t *told, uint16_t *sums, uint16_t *out) {
    Phase p = {0};
    Py_ssize_t near_all = 1, hint_all = 1, near_at = 0, hint_at = 0, far = 0;
    for (Py_ssize_t a = q->rank - 1; a >= 0; a--) {
        p.counts[a + 1] = q->counts[a];
        p.near_steps[a + 1] = 2 * near_all;
        p.hint_steps[a + 1] = 2 * hint_all;
        near_at += (q->starts[a] + 1) * near_all;
        hint_at += q->starts[a] * hint_all;
        far += 2 * (q->counts[a] - 1) * near_all;
        near_all *= q->lengths[a] + 2;
        hint_all *= q->lengths[a];
    }
    p.counts[0] = k->variables, p.near_steps[0] = near_all, p.hint_steps[0] = hint_all;
    if (k->variables < 1 || near_all > PY_SSIZE_T_MAX / 4 / k->variables || k->parts > 16) return 0;
    far += (k->variables - 1) * near_all;
    near_all *= k->variables, hint_all *= k->variables;
    /* One step along each of at most two axes stays inside the border. */
    for (Py_ssize_t n = 0; n < k->neighbours; n++)
        if (k->places[n] < -near_at || k->places[n] >= near_all - near_at - far) return 0;
    if (k->sizes->len != near_all * 2 || k->table->len < (CLIP * k->neighbours + 1) * 4 || k->classes->len < (16 * CLIP + 1) * 2 ||
        (k->hints->len && k->hints->len != hint_all * 2) || (told && !k->related))
        return 0;
    p.rank = q->rank + 1, p.neighbours = k->neighbours, p.places = k->places;
    p.table = k->table->buf, p.classes = k->classes->buf;
    Py_ssize_t length = q->lengths[q->rank - 1], width = length + 2;
    for (Py_ssize_t a = 0; a < q->rank; a++) p.near_lines[a] = p.near_steps[a] / width, p.hint_lines[a] = p.hint_steps[a] / length;
    for (Py_ssize_t n = 0; n < p.neighbours; n++) {
        /* A step along the last axis, by one at most, stays in its row. */
        Py_ssize_t step = k->places[n] + 1, at = step / width - (step % width < 0);
        if (!p.near_rows || at != p.rows[p.near_rows - 1]) p.rows[p.near_rows++] = at;
    }
    p.out = out, p.sums = sums, p.parts = k->parts, p.base = k->base, p.told = told, p.related = k->related;
    const uint16_t *near = k->sizes->buf, *hints = k->hints->len ? k->hints->buf : NULL;
    walk(&p, 0, near + near_at, hints ? hints + hint_at : NULL, k->live ? k->live + near_at / width : NULL,
         hints && k->live_hints ? k->live_hints + hint_at / length : NULL);
    return 1;
}

int hold_phase(PyObject *one, PyObject *shape, Parity *p, Known *k, Py_buffer *table) {
    PyObject *starts, *places;
    if (!PyTuple_Check(one) || !PyArg_ParseTuple(one, "OOy*HH", &starts, &places, table, &k->parts, &k->base)) return 0;
    k->table = table;
    if (read_parity(shape, starts, p) && read_places(places, k)) return 1;
    PyBuffer_Release(table);
    return 0;
}

PyDoc_STRVAR(contexts_doc,
             "phase_contexts(near, shape, starts, places, table, hints, parts, classes, base, told, related, out)\n--\n\n"
             "Write the contexts of one parity of a band: the class of what is expected, the guide, the base.\n\n"
             "`near`: uint16 sizes (V, *shape + 2). `shape`: of the band. `starts`: parity by axis. `places`: flat offsets of the\n"
             "neighbours. `table`: uint32, parts of the mean for each sum. `hints`: uint16 (V, *shape), or empty. `parts`: theirs.\n"
             "`classes`: uint16. `told`: uint8, twice what is told in the place of the guide, where variables are `related`; or\n"
             "empty. `out`: uint16.");

static PyObject *phase_contexts(PyObject *self, PyObject *args) {
    Py_buffer near, table, hints, classes, told, out;
    PyObject *shape, *starts, *places;
    Known k = {.sizes = &near, .table = &table, .hints = &hints, .classes = &classes};
    if (!PyArg_ParseTuple(args, "y*OOOy*y*Hy*Hy*pw*", &near, &shape, &starts, &places, &table, &hints, &k.parts, &classes, &k.base,
                          &told, &k.related, &out))
        return NULL;
    Parity p;
    int good = read_parity(shape, starts, &p) && read_places(places, &k);
    k.variables = good ? out.len / 2 / p.points : 0;
    good = good && out.len == k.variables * p.points * 2 && (!told.len || told.len == out.len / 2);
    uint16_t *sums = good ? malloc((size_t)p.counts[p.rank - 1] * sizeof(uint16_t)) : NULL;
    if (sums) {
        Py_BEGIN_ALLOW_THREADS;
        good = write_contexts(&k, &p, told.len ? told.buf : NULL, sums, out.buf);
        Py_END_ALLOW_THREADS;
        free(sums);
    } else if (good)
        PyErr_NoMemory();
    if (!good && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "phase_contexts: shapes and buffers do not fit");
    PyBuffer_Release(&near);
    PyBuffer_Release(&table);
    PyBuffer_Release(&hints);
    PyBuffer_Release(&classes);
    PyBuffer_Release(&told);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

int write_hints(const Guide *g, const uint16_t *guide, Py_ssize_t len, const uint16_t *classes, uint32_t *sums, uint16_t *out,
                Py_ssize_t out_len) {
    Py_ssize_t steps[MOST_AXES + 1], at[MOST_AXES + 1] = {0}, all = 1, out_all = 1, first = 0, far = 0, n = g->counts[g->rank - 1];
    for (Py_ssize_t a = g->rank - 1; a >= 0; a--) {
        Py_ssize_t pad = a ? 1 : 0;
        if (g->lengths[a] < 1 || g->counts[a] < 1 || g->counts[a] > g->lengths[a] || all > PY_SSIZE_T_MAX / 4 / (g->lengths[a] + 2))
            return 0;
        steps[a] = all;
        first += pad * all;
        far += (g->counts[a] - 1) * all;
        all *= g->lengths[a] + 2 * pad;
        out_all *= g->counts[a];
    }
    for (Py_ssize_t k = 0; k < g->neighbours; k++)
        if (first + g->places[k] < 0 || first + far + g->places[k] >= all) return 0;
    if (len != all * 2 || out_len != out_all * 2 || g->weight < 1 || g->weight > 64) return 0;
    /* Exact for sums below 2^32 / divisor. */
    uint32_t divisor = g->weight + (uint32_t)g->neighbours;
    uint64_t inverse = (1ULL << 32) / divisor + 1;
    for (Py_ssize_t row = 0; row < out_all / n; row++, out += n) {
        const uint16_t *from = guide + first;
        for (Py_ssize_t a = 0; a < g->rank - 1; a++) from += at[a] * steps[a];
        for (Py_ssize_t i = 0; i < n; i++) sums[i] = (uint32_t)g->weight * from[i];
        for (Py_ssize_t k = 0; k < g->neighbours; k++)
            for (Py_ssize_t i = 0; i < n; i++) sums[i] += from[i + g->places[k]];
        for (Py_ssize_t i = 0; i < n; i++) {
            uint16_t mean = (uint16_t)((sums[i] * inverse) >> 32);
            out[i] = (uint16_t)((mean << GUIDE_BITS) + classes[from[i] < 16 * CLIP ? from[i] : 16 * CLIP]);
        }
        for (Py_ssize_t a = g->rank - 2; a >= 0 && ++at[a] == g->counts[a]; a--) at[a] = 0;
    }
    return 1;
}

PyDoc_STRVAR(hints_doc,
             "hints(guide, shape, box, places, weight, classes, out)\n--\n\n"
             "Write the mean of the guide around each point of a box, and below it the class of the guide.\n\n"
             "`guide`: uint16 (V, *shape + 2), with a border of zeros. `places`: flat offsets of the neighbours, which weigh 1.\n"
             "`weight`: of the point itself. `classes`: uint16 by value of the guide. `out`: uint16 (V, *box).");

static PyObject *hints(PyObject *self, PyObject *args) {
    Py_buffer guide, classes, out;
    PyObject *shape, *box, *places;
    Guide g = {0};
    if (!PyArg_ParseTuple(args, "y*OOOHy*w*", &guide, &shape, &box, &places, &g.weight, &classes, &out)) return NULL;
    g.rank = PyTuple_Check(shape) ? PyTuple_Size(shape) : 0;
    g.neighbours = PyTuple_Check(places) ? PyTuple_Size(places) : 0;
    int good = g.rank >= 2 && g.rank <= MOST_AXES + 1 && g.neighbours <= MOST_NEIGHBOURS && read_tuple(shape, g.rank, g.lengths) &&
               read_tuple(box, g.rank, g.counts) && read_tuple(places, g.neighbours, g.places) && g.counts[g.rank - 1] >= 1 &&
               g.counts[g.rank - 1] <= out.len / 2 && classes.len >= (16 * CLIP + 1) * 2;
    uint32_t *sums = good ? malloc((size_t)g.counts[g.rank - 1] * sizeof(uint32_t)) : NULL;
    if (sums) {
        Py_BEGIN_ALLOW_THREADS;
        good = write_hints(&g, guide.buf, guide.len, classes.buf, sums, out.buf, out.len);
        Py_END_ALLOW_THREADS;
        free(sums);
    } else if (good)
        PyErr_NoMemory();
    if (!good && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "hints: shapes and buffers do not fit");
    PyBuffer_Release(&guide);
    PyBuffer_Release(&classes);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* The values of a phase in its list, in the grid, and their magnitudes among the neighbours. */
typedef struct {
    uint16_t *near;
    /* int64, or int16 where `width` is 2. */
    char *values;
    /* Of each value, or NULL. */
    const int16_t *expected;
    double *grid;
    Py_ssize_t rank, counts[MOST_AXES], near_steps[MOST_AXES], grid_steps[MOST_AXES], width;
    int store;
    /* Of rows of sizes, from the first one on, how many sizes each has. */
    uint8_t *live;
    const uint16_t *first;
    Py_ssize_t row;
} Move;

PyDoc_STRVAR(sizes_doc, "sizes(values, out)\n--\n\nWrite the sizes (uint16) of integers (int64).");

static PyObject *sizes(PyObject *self, PyObject *args) {
    Py_buffer values, out;
    if (!PyArg_ParseTuple(args, "y*w*", &values, &out)) return NULL;
    Py_ssize_t n = values.len / 8;
    if (values.len % 8 == 0 && out.len == 2 * n) {
        const int64_t *v = values.buf;
        uint16_t *to = out.buf;
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t i = 0; i < n; i++) to[i] = size_of(v[i]);
        Py_END_ALLOW_THREADS;
    } else
        PyErr_SetString(PyExc_ValueError, "sizes: buffers do not fit");
    PyBuffer_Release(&values);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* Size of what is not expected of a value, which may be no number of a field. */
static inline uint16_t rest_size(int64_t v, int16_t expected) { return size_of((int64_t)((uint64_t)v - (uint64_t)expected)); }

/* Four zeros are passed by: grid and sizes hold zeros where nothing was stored. EXPECTED: what sizes leave out. */
#define STORE_ROW(NAME, INT, EXPECTED)                                                                             \
    static void NAME(const INT *values, const int16_t *expected, uint16_t *near, double *grid, Py_ssize_t n,       \
                     Py_ssize_t step) {                                                                            \
        Py_ssize_t i = 0;                                                                                          \
        while (i < n) {                                                                                            \
            Py_ssize_t end = n - i < 4 ? n : i + 4;                                                                \
            if (end == i + 4 && !(values[i] | values[i + 1] | values[i + 2] | values[i + 3] | EXPECTED(i) |        \
                                  EXPECTED(i + 1) | EXPECTED(i + 2) | EXPECTED(i + 3)))                            \
                i = end;                                                                                           \
            else                                                                                                   \
                for (; i < end; i++) {                                                                             \
                    grid[i * step] = (double)values[i];                                                            \
                    near[2 * i] = rest_size(values[i], EXPECTED(i));                                               \
                }                                                                                                  \
        }                                                                                                          \
    }
#define NOTHING(I) 0
#define OF_EACH(I) expected[I]
STORE_ROW(store_wide, int64_t, NOTHING)
STORE_ROW(store_narrow, int16_t, NOTHING)
STORE_ROW(store_wide_rest, int64_t, OF_EACH)
STORE_ROW(store_narrow_rest, int16_t, OF_EACH)

static void load_row(int64_t *values, const int16_t *expected, uint16_t *near, const double *grid, Py_ssize_t n, Py_ssize_t step) {
    for (Py_ssize_t i = 0; i < n; i++) {
        values[i] = (int64_t)grid[i * step];
        near[2 * i] = rest_size(values[i], expected ? expected[i] : 0);
    }
}

static void move_row(Move *m, uint16_t *near, double *grid) {
    Py_ssize_t n = m->counts[m->rank - 1], step = m->grid_steps[m->rank - 1];
    int any = !m->store || any_byte(m->values, n * m->width) || (m->expected && any_byte(m->expected, n * 2));
    if (any && m->live) m->live[(near - m->first) / m->row] = 1;
    if (!any)
        ;
    else if (!m->store)
        load_row((int64_t *)m->values, m->expected, near, grid, n, step);
    else if (m->expected && m->width == 2)
        store_narrow_rest((const int16_t *)m->values, m->expected, near, grid, n, step);
    else if (m->expected)
        store_wide_rest((const int64_t *)m->values, m->expected, near, grid, n, step);
    else if (m->width == 2)
        store_narrow((const int16_t *)m->values, NULL, near, grid, n, step);
    else
        store_wide((const int64_t *)m->values, NULL, near, grid, n, step);
    m->values += n * m->width;
    if (m->expected) m->expected += n;
}

static void move_box(Move *m, Py_ssize_t axis, uint16_t *near, double *grid) {
    if (axis == m->rank - 1) {
        move_row(m, near, grid);
        return;
    }
    for (Py_ssize_t i = 0; i < m->counts[axis]; i++)
        move_box(m, axis + 1, near + i * m->near_steps[axis], grid + i * m->grid_steps[axis]);
}

int move_values(const Spot *s, const Parity *p, void *values, const int16_t *expected, int narrow, int store) {
    Move m = {.values = values, .expected = expected, .rank = p->rank, .width = narrow ? 2 : 8, .store = store};
    m.live = s->live, m.first = s->sizes->buf, m.row = p->lengths[p->rank - 1] + 2;
    Py_ssize_t far = 0, near_all = 1, near_at = 0, grid_at = 0, variables = s->firsts->len / 8, places = s->grid->len / 8;
    const int64_t *firsts = s->firsts->buf;
    for (Py_ssize_t a = p->rank - 1; a >= 0; a--) {
        Py_ssize_t n = p->lengths[a], step = s->steps[a];
        if (step < 1 || step > places || n > places || n - 1 > (places - far) / step) return 0;
        m.counts[a] = p->counts[a];
        m.near_steps[a] = 2 * near_all;
        m.grid_steps[a] = 2 * step;
        near_at += (p->starts[a] + 1) * near_all;
        grid_at += p->starts[a] * step;
        near_all *= n + 2;
        far += (n - 1) * step;
    }
    for (Py_ssize_t v = 0; v < variables; v++)
        if (firsts[v] < 0 || firsts[v] >= places - far) return 0;
    if (near_all > PY_SSIZE_T_MAX / 4 / (variables + 1) || s->sizes->len != 2 * near_all * variables || (narrow && !store)) return 0;
    for (Py_ssize_t v = 0; v < variables; v++)
        move_box(&m, 0, (uint16_t *)s->sizes->buf + v * near_all + near_at, (double *)s->grid->buf + firsts[v] + grid_at);
    return 1;
}

PyDoc_STRVAR(move_doc,
             "move(near, shape, starts, values, expected, grid, firsts, steps, store, narrow)\n--\n\n"
             "Move the values of one parity of a band from the list to the grid (`store`), or back, and note sizes.\n\n"
             "`near`: uint16 (V, *shape + 2). `shape`, `starts`: of the band, without V. `values`: int64, or int16\n"
             "(`narrow`; only to be stored). `expected`: int16, taken off before sizes are noted, or empty. `grid`: float64.\n"
             "`firsts`: int64, first place of each variable's band in it. `steps`: places from one index of the band to the next.");

static PyObject *move(PyObject *self, PyObject *args) {
    Py_buffer near, values, expected, grid, firsts;
    PyObject *shape, *starts, *steps;
    int store, narrow;
    if (!PyArg_ParseTuple(args, "w*OOw*y*w*y*Opp", &near, &shape, &starts, &values, &expected, &grid, &firsts, &steps, &store, &narrow))
        return NULL;
    Parity p;
    Spot s = {.sizes = &near, .grid = &grid, .firsts = &firsts};
    Py_ssize_t width = narrow ? 2 : 8, variables = firsts.len / 8;
    int good = read_parity(shape, starts, &p) && read_tuple(steps, p.rank, s.steps) && firsts.len == 8 * variables &&
               variables <= PY_SSIZE_T_MAX / 8 / p.points && values.len == variables * p.points * width &&
               (!expected.len || expected.len == variables * p.points * 2);
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        good = move_values(&s, &p, values.buf, expected.len ? expected.buf : NULL, narrow, store);
        Py_END_ALLOW_THREADS;
    }
    if (!good && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "move: shapes and buffers do not fit");
    PyBuffer_Release(&near);
    PyBuffer_Release(&values);
    PyBuffer_Release(&expected);
    PyBuffer_Release(&grid);
    PyBuffer_Release(&firsts);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"phase_contexts", phase_contexts, METH_VARARGS, contexts_doc},
                                {"hints", hints, METH_VARARGS, hints_doc},
                                {"sizes", sizes, METH_VARARGS, sizes_doc},
                                {"move", move, METH_VARARGS, move_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_neighbours", "Compiled contexts.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__neighbours(void) { return PyModule_Create(&module); }
