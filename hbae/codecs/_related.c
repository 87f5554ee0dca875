/* SPDX-License-Identifier: MIT
 *
 * What is expected of one phase of a wavelet band from the variables before: local least squares in float32, the same operations
 * in the same order as the NumPy code in hbae/codecs/related.py. Some points are worked on side by side.
 */
#include "_sets.h"

#include <string.h>

#define NUM_LIMITS 15
#define LANES 16
#define ROWS 16
/* As in related.py. */
#define RIDGE 4.0f
#define RIDGE_PART 0x1p-12f
#define BOUND 0x1p64f
#define LARGEST 32767

#define INSIDE static inline __attribute__((always_inline))

typedef struct {
    const int16_t *own;
    const float *limits;
    float off_from;
    Expected *out;
    /* In points. */
    Py_ssize_t rank, counts[MOST_AXES], steps[MOST_AXES];
    /* Columns of a point: of leaders; of variables to tell of, how many of them, the first one; points of the phase. */
    Py_ssize_t width, told_width, rows, first, points;
    /* What is at each place around the first point: leaders, variables to tell of. */
    const int16_t *leads[MOST_PLACES], *told[MOST_PLACES];
    int leaders, num_places;
    /* Points on their way: where they lie, their number, how many. */
    Py_ssize_t at[LANES], number[LANES], next;
    int held;
} Work;

/* One number of each point on its way. */
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t Mask __attribute__((vector_size(4 * LANES)));

typedef struct {
    /* One row more than leaders: eight are loaded together. `lower`: columns first. `parts`: one
       divided by each pivot. */
    Lanes around[MOST_PLACES][MOST_LEADERS + 1], lower[MOST_LEADERS + 1][MOST_LEADERS + 1],
        scaled[MOST_LEADERS + 1][MOST_LEADERS + 1], parts[MOST_LEADERS + 1], w[MOST_LEADERS + 1];
    float alike[LANES][MOST_PLACES];
    int live[MOST_PLACES], num_live;
} Batch;

typedef int16_t Sixteen __attribute__((vector_size(32)));

/* Whether any of some values of a point is not zero, or of those beside them in it; it has `all`. */
INSIDE int any_of(const int16_t *point, Py_ssize_t all, Py_ssize_t first, Py_ssize_t n) {
    uint64_t any[4] = {0};
    if (all < 16) {
        for (Py_ssize_t i = 0; i < n; i++) any[0] |= (uint64_t)(point[first + i] != 0);
        return any[0] != 0;
    }
    Sixteen found = {0}, some;
    for (Py_ssize_t i = first; i < first + n; i += 16) {
        memcpy(&some, point + (i < all - 16 ? i : all - 16), sizeof some);
        found |= some;
    }
    memcpy(any, &found, sizeof found);
    return (any[0] | any[1] | any[2] | any[3]) != 0;
}

/* Whether a point has a leader, and a variable to tell of has anything around it: all others are told zeros. */
INSIDE int matters(const Work *k, Py_ssize_t at) {
    if (!any_of(k->own + at * k->width, k->width, 0, k->leaders)) return 0;
    /* What is read now and when the lanes are full is scattered: it is called for. */
    for (int n = 0; n < k->num_places; n++) {
        __builtin_prefetch(k->leads[n] + at * k->width);
        for (Py_ssize_t v = k->first; v < k->first + k->rows; v += 32) __builtin_prefetch(k->told[n] + at * k->told_width + v);
    }
    for (int n = 0; n < k->num_places; n++)
        if (any_of(k->told[n] + at * k->told_width, k->told_width, k->first, k->rows)) return 1;
    return 0;
}

typedef int16_t Eight __attribute__((vector_size(16)));
typedef int32_t Wide __attribute__((vector_size(32)));
typedef float Floats __attribute__((vector_size(32)));

/* Turn eight leaders of eight points round: three times, each half is laced with the other. */
INSIDE int turn_round(const int16_t *const *from, Lanes *u, int l) {
    Eight x[8], y[8], any = {0};
    for (int m = 0; m < 8; m++) {
        memcpy(&x[m], from[m], sizeof x[m]);
        any |= x[m];
    }
    for (int round = 0; round < 3; round++) {
        for (int m = 0; m < 4; m++) {
            y[2 * m] = __builtin_shufflevector(x[m], x[m + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            y[2 * m + 1] = __builtin_shufflevector(x[m], x[m + 4], 4, 12, 5, 13, 6, 14, 7, 15);
        }
        memcpy(x, y, sizeof x);
    }
    for (int m = 0; m < 8; m++) {
        Floats floats = __builtin_convertvector(__builtin_convertvector(x[m], Wide), Floats);
        memcpy((float *)&u[m] + l, &floats, sizeof floats);
    }
    uint64_t halves[2];
    memcpy(halves, &any, sizeof halves);
    return (halves[0] | halves[1]) != 0;
}

/* Leaders of all points at a place, or more variables; whether any is there. */
INSIDE int load(const Work *k, const int16_t *place, Lanes *u) {
    int any = 0, i = 0;
    for (; i < k->leaders && i + 8 <= k->width; i += 8)
        for (int l = 0; l < LANES; l += 8) {
            const int16_t *from[8];
            for (int m = 0; m < 8; m++) from[m] = place + k->at[l + m] * k->width + i;
            any |= turn_round(from, u + i, l);
        }
    for (int l = 0; l < LANES; l++)
        for (int r = i; r < k->leaders; r++) {
            int16_t v = place[k->at[l] * k->width + r];
            ((float *)&u[r])[l] = v;
            any |= v;
        }
    return any != 0;
}

/* What leaders are at the places around; places where all are zero add nothing and are left out. */
FOR_WIDE_UNITS static void gather(const Work *k, Batch *b) {
    b->num_live = 0;
    for (int n = 0; n < k->num_places; n++)
        if (load(k, k->leads[n], b->around[b->num_live])) b->live[b->num_live++] = n;
    load(k, k->own, b->w);
}

/* Sums of products of leaders over the places, for two leaders and two others at once. */
INSIDE void multiply(Batch *b, int i, int j) {
    Lanes s = {0}, t = {0}, u = {0}, v = {0};
    for (int n = 0; n < b->num_live; n++) {
        const Lanes *x = b->around[n] + i, *y = b->around[n] + j;
        s += x[0] * y[0];
        t += x[0] * y[1];
        u += x[1] * y[0];
        v += x[1] * y[1];
    }
    b->scaled[i][j] = s, b->scaled[i][j + 1] = t;
    b->scaled[i + 1][j] = u, b->scaled[i + 1][j + 1] = v;
}

/* One of two, where a mask is set or not. */
#define CHOOSE(MASK, YES, NO) ((Lanes)(((MASK) & (Mask)(YES)) | (~(MASK) & (Mask)(NO))))

/* Every sum has its terms in the order of k; what needs one of them gets it at once, so that nothing waits for a whole sum. */
FOR_WIDE_UNITS static void solve(Batch *b, int leaders) {
    const Lanes none = {0}, ridge = none + RIDGE;
    for (int i = 0; i < leaders; i += 2)
        for (int j = 0; j <= i; j += 2) multiply(b, i, j);
    for (int i = 0; i < leaders; i++) {
        Lanes *row = b->scaled[i];
        row[i] += row[i] * RIDGE_PART;
        row[i] += ridge;
        for (int k = 0; k < i; k++) {
            Lanes scaled = row[k], lower = scaled * b->parts[k];
            for (int j = k + 1; j < i; j++) row[j] -= scaled * b->lower[k][j];
            row[i] -= scaled * lower;
            b->lower[k][i] = lower;
        }
        b->parts[i] = 1.0f / CHOOSE(row[i] > ridge, row[i], ridge);
    }
    for (int k = 0; k < leaders; k++)
        for (int i = k + 1; i < leaders; i++) b->w[i] -= b->lower[k][i] * b->w[k];
    for (int i = 0; i < leaders; i++) b->w[i] *= b->parts[i];
    for (int k = leaders - 1; k > 0; k--)
        for (int i = 0; i < k; i++) b->w[i] -= b->lower[i][k] * b->w[k];
    for (int i = 0; i < leaders; i++) b->w[i] = CHOOSE((b->w[i] < BOUND) & (b->w[i] > -BOUND), b->w[i], none);
    for (int n = 0; n < b->num_live; n++) {
        Lanes sum = none;
        for (int i = 0; i < leaders; i++) sum += b->around[n][i] * b->w[i];
        for (int l = 0; l < LANES; l++) b->alike[l][n] = sum[l];
    }
}

/* What is expected of so many variables of a point, from one on: class, times 2, and sign; the nearest integer of what is to be
   taken off. */
#define TELL(NAME, COUNT)                                                                                          \
    typedef float NAME##_floats __attribute__((vector_size(4 * COUNT)));                                           \
    typedef int32_t NAME##_ints __attribute__((vector_size(4 * COUNT)));                                           \
    typedef int16_t NAME##_shorts __attribute__((vector_size(2 * COUNT)));                                         \
    typedef uint8_t NAME##_bytes __attribute__((vector_size(COUNT)));                                              \
    INSIDE void NAME(const Work *k, const Batch *b, int l, Py_ssize_t from, uint8_t *codes, int16_t *values) {     \
        NAME##_floats total = {0};                                                                                 \
        for (int n = 0; n < b->num_live; n++) {                                                                    \
            NAME##_shorts there;                                                                                   \
            memcpy(&there, k->told[b->live[n]] + k->at[l] * k->told_width + from, sizeof there);                   \
            NAME##_ints wide = __builtin_convertvector(there, NAME##_ints);                                            \
            total += b->alike[l][n] * __builtin_convertvector(wide, NAME##_floats);                                \
        }                                                                                                          \
        NAME##_ints minus = (NAME##_ints)(total < 0.0f), code = -minus, bits = (NAME##_ints)total & 0x7fffffff;     \
        NAME##_floats magnitude = (NAME##_floats)bits;                                                             \
        for (int c = 0; c < NUM_LIMITS; c++) code -= (NAME##_ints)(magnitude >= k->limits[c]) * 2;                 \
        NAME##_bytes bytes = __builtin_convertvector(code, NAME##_bytes);                                          \
        memcpy(codes, &bytes, sizeof bytes);                                                                       \
        NAME##_ints large = (NAME##_ints)(magnitude > (float)LARGEST), told = (NAME##_ints)(magnitude >= k->off_from); \
        bits = (bits & ~large) | ((NAME##_ints)((NAME##_floats){0} + (float)LARGEST) & large);                     \
        /* No digits behind the point are left: the nearest integer, or the even one. */                           \
        NAME##_floats nearest = ((NAME##_floats)bits + 0x1p23f) - 0x1p23f;                                         \
        NAME##_ints whole = __builtin_convertvector(nearest, NAME##_ints) & told;                                  \
        NAME##_shorts shorts = __builtin_convertvector((whole ^ minus) - minus, NAME##_shorts);                    \
        memcpy(values, &shorts, sizeof shorts);                                                                    \
    }
TELL(tell_many, 16)
TELL(tell_few, 8)
TELL(tell_one, 1)

typedef uint8_t Bytes __attribute__((vector_size(ROWS)));

/* Put the codes of some variables of all lanes, from one of the codes on, into their places. */
INSIDE void put_codes(const Work *k, uint8_t (*codes)[ROWS], int from, Py_ssize_t row, Py_ssize_t rows) {
    uint8_t *out = k->out->codes + row * k->points;
    if (k->held < LANES || k->number[LANES - 1] - k->number[0] != LANES - 1) {
        for (int l = 0; l < k->held; l++)
            for (Py_ssize_t r = 0; r < rows; r++) out[r * k->points + k->number[l]] = codes[l][from + r];
        return;
    }
    Bytes x[LANES], y[LANES];
    memcpy(x, codes, sizeof x);
    for (int round = 0; round < 4; round++) {
        for (int m = 0; m < 8; m++) {
            y[2 * m] = __builtin_shufflevector(x[m], x[m + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            y[2 * m + 1] = __builtin_shufflevector(x[m], x[m + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        memcpy(x, y, sizeof x);
    }
    for (Py_ssize_t r = 0; r < rows; r++) memcpy(out + r * k->points + k->number[0], &x[from + r], LANES);
}

/* The same for values, few of which are not zero. */
INSIDE void put_values(const Work *k, int16_t (*values)[ROWS], int from, Py_ssize_t row, Py_ssize_t rows) {
    int any = 0;
    for (int l = 0; l < k->held; l++) any |= any_of(values[l], ROWS, from, rows);
    if (!any) return;
    k->out->any = 1;
    for (Py_ssize_t r = 0; r < rows; r++) {
        int16_t *out = k->out->values + (row + r) * k->points;
        for (int l = 0; l < k->held; l++) out[k->number[l]] = values[l][from + r];
    }
}

/* Blocks of variables are full: the last one begins early, with some whose codes are not wanted. */
FOR_WIDE_UNITS static void tell(const Work *k, const Batch *b) {
    uint8_t codes[LANES][ROWS] = {{0}};
    int16_t values[LANES][ROWS] = {{0}};
    for (Py_ssize_t row = 0, width; row < k->rows; row += width) {
        Py_ssize_t left = k->rows - row, first = k->first + row;
        width = left > 8 && k->told_width >= 16 ? 16 : k->told_width >= 8 ? 8 : 1;
        Py_ssize_t begin = first < k->told_width - width ? first : k->told_width - width;
        for (int l = 0; l < k->held; l++)
            if (width == 16)
                tell_many(k, b, l, begin, codes[l], values[l]);
            else if (width == 8)
                tell_few(k, b, l, begin, codes[l], values[l]);
            else
                tell_one(k, b, l, begin, codes[l], values[l]);
        put_codes(k, codes, (int)(first - begin), row, left < width ? left : width);
        put_values(k, values, (int)(first - begin), row, left < width ? left : width);
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

FOR_WIDE_UNITS static void walk_row(Work *k, Batch *b, Py_ssize_t at) {
    for (Py_ssize_t i = 0; i < k->counts[k->rank - 1]; i++, at += k->steps[k->rank - 1], k->next++) {
        if (!matters(k, at)) continue;
        k->at[k->held] = at;
        k->number[k->held++] = k->next;
        if (k->held == LANES) flush(k, b);
    }
}

static void walk(Work *k, Batch *b, Py_ssize_t axis, Py_ssize_t at) {
    if (axis == k->rank - 1)
        walk_row(k, b, at);
    else
        for (Py_ssize_t i = 0; i < k->counts[axis]; i++) walk(k, b, axis + 1, at + i * k->steps[axis]);
}

/* Hold the buffers of a tuple that are as long as the first one; gives whether all are held. */
static int hold_blocks(PyObject *t, Py_buffer *b, Py_ssize_t *held) {
    Py_ssize_t n = PyTuple_Check(t) ? PyTuple_Size(t) : 0;
    for (*held = 0; n <= MOST_PLACES + 1 && *held < n; ++*held) {
        if (PyObject_GetBuffer(PyTuple_GetItem(t, *held), b + *held, PyBUF_SIMPLE) < 0) return 0;
        if (b[*held].len != b[0].len) {
            PyBuffer_Release(b + *held);
            return 0;
        }
    }
    return *held >= 1 && *held == n;
}

int hold_around(PyObject *leads, PyObject *told, Around *a) {
    a->told_bands = 0;
    return hold_blocks(leads, a->leads, &a->bands) && hold_blocks(told, a->told, &a->told_bands) && a->bands == a->told_bands;
}

void release_around(Around *a) {
    while (a->bands) PyBuffer_Release(a->leads + --a->bands);
    while (a->told_bands) PyBuffer_Release(a->told + --a->told_bands);
}

int expect_values(const Around *a, const Places *p, const Parity *q, Py_ssize_t rows, Expected *out) {
    Work k = {.rank = q->rank, .points = q->points, .leaders = a->leaders, .num_places = (int)p->count, .rows = rows, .first = a->first};
    Py_ssize_t all = 1, low = 0, high = 0;
    for (Py_ssize_t i = q->rank - 1; i >= 0; i--) {
        k.counts[i] = q->counts[i];
        k.steps[i] = 2 * all;
        low += (1 + q->starts[i]) * all;
        high += (1 + q->starts[i] + 2 * (q->counts[i] - 1)) * all;
        all *= q->lengths[i] + 2;
    }
    k.width = a->leads[0].len / 2 / all, k.told_width = a->told[0].len / 2 / all;
    if (a->leads[0].len % (2 * all) || a->told[0].len % (2 * all) || a->limits->len != NUM_LIMITS * 4 || a->leaders < 1 ||
        a->leaders > MOST_LEADERS || a->leaders > k.width || a->first < 0 || rows > k.told_width || a->first > k.told_width - rows)
        return 0;
    for (Py_ssize_t n = 0; n < p->count; n++) {
        Py_ssize_t band = p->at[n][0], step = p->at[n][1];
        if (band < 0 || band >= a->bands || step < -low || step >= all - high) return 0;
        k.leads[n] = (const int16_t *)a->leads[band].buf + step * k.width;
        k.told[n] = (const int16_t *)a->told[band].buf + step * k.told_width;
    }
    k.own = a->leads[0].buf, k.limits = a->limits->buf, k.off_from = a->off_from, k.out = out;
    Batch b;
    /* Rows that no variable fills take part in sums that nobody looks at. */
    memset(b.around, 0, sizeof b.around);
    walk(&k, &b, 0, low);
    flush(&k, &b);
    return 1;
}

PyDoc_STRVAR(expect_doc,
             "expect(leads, told, shape, starts, places, leaders, first, limits, off_from, codes, values)\n--\n\n"
             "Write what is expected of one parity of a band of variables; where nothing is, `codes` and `values` stay as they are.\n\n"
             "`leads`: tuple of int16 (*shape + 2, columns), the own band first: the leaders. `told`: the same of the variables to\n"
             "tell of. `shape`: of the band. `starts`: parity by axis. `places`: band (0: the own one) and step of each. `first`: the\n"
             "column of the first variable. `limits`: float32 (15). `off_from`: what is expected counts for `values` from there on.\n"
             "`codes`: class (times 2) and sign, uint8. `values`: the nearest integer, int16.");

static PyObject *expect(PyObject *self, PyObject *args) {
    Py_buffer limits, codes, values;
    PyObject *leads, *told, *shape, *starts, *places;
    Around a = {.limits = &limits};
    if (!PyArg_ParseTuple(args, "OOOOOiny*fw*w*", &leads, &told, &shape, &starts, &places, &a.leaders, &a.first, &limits, &a.off_from,
                          &codes, &values))
        return NULL;
    Expected out = {.codes = codes.buf, .values = values.buf};
    Parity p;
    Places around;
    int good = read_parity(shape, starts, &p) && read_around(places, &around) && around.count && hold_around(leads, told, &a) &&
               codes.len % p.points == 0 && values.len == 2 * codes.len;
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        good = expect_values(&a, &around, &p, codes.len / p.points, &out);
        Py_END_ALLOW_THREADS;
    }
    if (!good && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "expect: shapes and buffers do not fit");
    release_around(&a);
    PyBuffer_Release(&limits);
    PyBuffer_Release(&codes);
    PyBuffer_Release(&values);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

typedef struct {
    Py_ssize_t rank, counts[MOST_AXES], out_steps[MOST_AXES], steps[MOST_AXES], ratios[MOST_AXES], lasts[MOST_AXES], rows, points;
    const int64_t *places;
    /* How many of them lie side by side there: all or, else, 0. */
    Py_ssize_t plain;
} Copy;

/* Variables side by side in each point, from lists of each; `values` moves on. */
#define NOTE_ALL(NAME, INT)                                                                                        \
    static void NAME(const Copy *c, Py_ssize_t axis, int16_t *out, const INT **values) {                           \
        Py_ssize_t step = c->out_steps[axis];                                                                      \
        for (Py_ssize_t i = 0; i < c->counts[axis]; i++, out += step) {                                            \
            if (axis < c->rank - 1) {                                                                              \
                NAME(c, axis + 1, out, values);                                                                    \
                continue;                                                                                          \
            }                                                                                                      \
            const INT *from = (*values)++;                                                                         \
            for (Py_ssize_t r = 0; r < c->rows; r++) {                                                             \
                INT v = from[r * c->points];                                                                       \
                out[r] = (int16_t)(v > LARGEST ? LARGEST : v < -LARGEST ? -LARGEST : v);                           \
            }                                                                                                      \
        }                                                                                                          \
    }
NOTE_ALL(note_wide, int64_t)
NOTE_ALL(note_narrow, int16_t)

int note_values(const Py_buffer *own, const Parity *p, Py_ssize_t first, Py_ssize_t rows, const void *values, int narrow) {
    Copy c = {.rank = p->rank, .points = p->points, .rows = rows};
    Py_ssize_t all = 1, low = 0;
    for (Py_ssize_t a = p->rank - 1; a >= 0; a--) {
        low += (1 + p->starts[a]) * all;
        all *= p->lengths[a] + 2;
    }
    Py_ssize_t width = own->len / 2 / all, step = 2 * width;
    if (own->len % (2 * all) || first < 0 || rows > width || first > width - rows) return 0;
    for (Py_ssize_t a = p->rank - 1; a >= 0; a--) {
        c.counts[a] = p->counts[a];
        c.out_steps[a] = step;
        step *= p->lengths[a] + 2;
    }
    int16_t *to = (int16_t *)own->buf + low * width + first;
    const int64_t *wide = values;
    const int16_t *thin = values;
    if (narrow)
        note_narrow(&c, 0, to, &thin);
    else
        note_wide(&c, 0, to, &wide);
    return 1;
}

PyDoc_STRVAR(note_doc,
             "note(own, shape, starts, first, values, narrow)\n--\n\n"
             "Put the integers of one parity of the band, from a column on, into their places, cut to the limits.\n\n"
             "`own`: int16 (*shape + 2, columns). `shape`, `starts`: as for `expect`. `values`: int64, or int16 (`narrow`).");

static PyObject *note(PyObject *self, PyObject *args) {
    Py_buffer own, values;
    PyObject *shape, *starts;
    Py_ssize_t first;
    int narrow;
    if (!PyArg_ParseTuple(args, "w*OOny*p", &own, &shape, &starts, &first, &values, &narrow)) return NULL;
    Parity p;
    Py_ssize_t width = narrow ? 2 : 8;
    int good = read_parity(shape, starts, &p) && values.len % (p.points * width) == 0;
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        good = note_values(&own, &p, first, values.len / width / p.points, values.buf, narrow);
        Py_END_ALLOW_THREADS;
    }
    if (!good && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "note: shapes and buffers do not fit");
    PyBuffer_Release(&own);
    PyBuffer_Release(&values);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static void see_point(const Copy *c, int16_t *out, const int16_t *from) {
    if (c->plain)
        memcpy(out, from + c->places[0], (size_t)c->plain * sizeof(int16_t));
    else
        for (Py_ssize_t r = 0; r < c->rows; r++)
            if (c->places[r] >= 0) out[r] = from[c->places[r]];
}

static void see_all(const Copy *c, Py_ssize_t axis, int16_t *out, const int16_t *from) {
    Py_ssize_t ratio = c->ratios[axis], last = c->lasts[axis], count = c->counts[axis];
    for (Py_ssize_t i = 0, there = 0; i < count; there++, from += c->steps[axis]) {
        Py_ssize_t end = there < last && ratio < count - i ? i + ratio : count;
        for (; i < end; i++, out += c->out_steps[axis]) {
            if (axis < c->rank - 1)
                see_all(c, axis + 1, out, from);
            else
                see_point(c, out, from);
        }
    }
}

PyDoc_STRVAR(see_doc,
             "see(own, first, places, steps, ratios, lasts, shape, out)\n--\n\n"
             "Write what another band has at the points of a band.\n\n"
             "`own`: int16, the other band; its first point begins at `first`. `places`: int64, where each variable is in a\n"
             "point, or -1. `steps`: from one of its indices to the next, `lasts`: the last ones, `ratios`: how many points of\n"
             "the band see one, by axis. `shape`: of the band. `out`: int16 (*shape + 2, R).");

static PyObject *see(PyObject *self, PyObject *args) {
    Py_buffer own, places, out;
    PyObject *shape, *steps, *ratios, *lasts;
    Copy c = {0};
    Py_ssize_t first, all = 1, low = 0, far = 0, most = 0;
    if (!PyArg_ParseTuple(args, "y*ny*OOOOw*", &own, &first, &places, &steps, &ratios, &lasts, &shape, &out)) return NULL;
    Py_ssize_t size = own.len / 2;
    c.rows = places.len / 8, c.places = places.buf;
    c.rank = PyTuple_Check(shape) ? PyTuple_Size(shape) : 0;
    int good = c.rank >= 1 && c.rank <= MOST_AXES && read_tuple(shape, c.rank, c.counts) && read_tuple(steps, c.rank, c.steps) &&
               read_tuple(ratios, c.rank, c.ratios) && read_tuple(lasts, c.rank, c.lasts) && places.len % 8 == 0 && c.rows >= 1 &&
               first >= 0 && first < size;
    for (Py_ssize_t a = c.rank - 1; good && a >= 0; a--) {
        good = c.counts[a] >= 1 && c.counts[a] <= MOST && c.ratios[a] >= 1 && c.lasts[a] >= 0 && c.steps[a] >= 1 &&
               c.lasts[a] <= (size - far) / c.steps[a] && all <= PY_SSIZE_T_MAX / 64 / (c.counts[a] + 2) / c.rows;
        if (!good) break;
        c.out_steps[a] = all * c.rows;
        low += all;
        all *= c.counts[a] + 2;
        far += c.lasts[a] * c.steps[a];
    }
    for (Py_ssize_t r = 0; good && r < c.rows; r++) {
        good = c.places[r] >= -1 && c.places[r] < size;
        if (!good) break;
        if (c.places[r] > most) most = c.places[r];
    }
    while (good && c.plain < c.rows && c.places[0] >= 0 && c.places[c.plain] == c.places[0] + c.plain) c.plain++;
    if (c.plain < c.rows) c.plain = 0;
    good = good && most < size - first && far < size - first - most && c.rows <= PY_SSIZE_T_MAX / 16 / all &&
           out.len == c.rows * all * 2;
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        see_all(&c, 0, (int16_t *)out.buf + low * c.rows, (const int16_t *)own.buf + first);
        Py_END_ALLOW_THREADS;
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "see: shapes and buffers do not fit");
    PyBuffer_Release(&own);
    PyBuffer_Release(&places);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* Minus a number where the lowest bit of a code is set; unsigned, as what is no number of a field may overflow. */
#define TURN(CODE, NUMBER, UINT) (((NUMBER) ^ (UINT)-(UINT)((CODE)&1)) - (UINT)-(UINT)((CODE)&1))

/* Whether all of them fit. */
FOR_WIDE_UNITS static int join_narrow(int16_t *values, const Expected *e, Py_ssize_t n) {
    int32_t over = 0;
    for (Py_ssize_t i = 0; e->any && i < n; i++) {
        int32_t v = (int32_t)TURN(e->codes[i], (uint32_t)values[i], uint32_t) + e->values[i];
        over |= v ^ (int16_t)v;
    }
    if (over) return 0;
    for (Py_ssize_t i = 0; i < n; i++) values[i] = (int16_t)TURN(e->codes[i], (uint16_t)values[i], uint16_t);
    for (Py_ssize_t i = 0; e->any && i < n; i++) values[i] = (int16_t)(values[i] + e->values[i]);
    return 1;
}

FOR_WIDE_UNITS static void join_wide(int64_t *values, const Expected *e, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) values[i] = (int64_t)(TURN(e->codes[i], (uint64_t)values[i], uint64_t) + (uint64_t)e->values[i]);
}

int join_values(void *values, const Expected *e, Py_ssize_t n, int narrow) {
    if (narrow && join_narrow(values, e, n)) return 1;
    /* From the last one on, in place. */
    for (Py_ssize_t i = n - 1; narrow && i >= 0; i--) {
        int64_t v = ((const int16_t *)values)[i];
        memcpy((char *)values + 8 * i, &v, sizeof v);
    }
    join_wide(values, e, n);
    return 0;
}

PyDoc_STRVAR(join_doc,
             "join(values, codes, expected)\n--\n\n"
             "Make values (int64), in place, of rests: their signs turned where the lowest bit of a code (uint8) is set, plus what\n"
             "is expected (int16).");

PyDoc_STRVAR(split_doc, "split(values, codes, expected)\n--\n\nUndo `join`.");

static PyObject *join_or_split(PyObject *args, int join) {
    Py_buffer values, codes, expected;
    if (!PyArg_ParseTuple(args, "w*y*y*", &values, &codes, &expected)) return NULL;
    Py_ssize_t n = codes.len;
    Expected e = {.codes = codes.buf, .values = expected.buf};
    int64_t *v = values.buf;
    if (values.len % 8 || values.len / 8 != n || expected.len % 2 || expected.len / 2 != n)
        PyErr_SetString(PyExc_ValueError, "buffers do not fit");
    else if (join)
        join_wide(v, &e, n);
    else
        for (Py_ssize_t i = 0; i < n; i++) v[i] = (int64_t)TURN(e.codes[i], (uint64_t)v[i] - (uint64_t)e.values[i], uint64_t);
    PyBuffer_Release(&values);
    PyBuffer_Release(&codes);
    PyBuffer_Release(&expected);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *join(PyObject *self, PyObject *args) { return join_or_split(args, 1); }
static PyObject *split(PyObject *self, PyObject *args) { return join_or_split(args, 0); }

static PyMethodDef methods[] = {{"expect", expect, METH_VARARGS, expect_doc},
                                {"note", note, METH_VARARGS, note_doc},
                                {"see", see, METH_VARARGS, see_doc},
                                {"join", join, METH_VARARGS, join_doc},
                                {"split", split, METH_VARARGS, split_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_related", "Compiled local least squares.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__related(void) { return PyModule_Create(&module); }
