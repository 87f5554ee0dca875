/* SPDX-License-Identifier: MIT
 *
 * What is done with one parity of a band of variables or of a slab: each a step of _sets.c or _slabs.c, and by itself a function
 * of its own kernel.
 * Functions give whether everything fits, unless they say otherwise, and touch nothing where it does not. Buffers that are written
 * overlap no other one: what was checked would change.
 */
#ifndef HBAE_SETS_H
#define HBAE_SETS_H

#include "../_kernel.h"

#include <stdint.h>
#include <string.h>

#define MOST_AXES 8
#define MOST_PHASES 128
#define MOST_NEIGHBOURS 96
#define MOST_LEADERS 15
#define MOST_PLACES 24
/* Of lengths that are looked at. */
#define MOST ((Py_ssize_t)1 << 40)

/* One parity of a band: lengths of the band, parity by axis, how many points of it, by axis and of one variable. */
typedef struct {
    Py_ssize_t rank, lengths[MOST_AXES], starts[MOST_AXES], counts[MOST_AXES], points;
} Parity;

/* Bands with their borders are small enough to count their bytes. */
static inline int read_parity(PyObject *shape, PyObject *starts, Parity *p) {
    p->rank = PyTuple_Check(shape) ? PyTuple_Size(shape) : 0;
    if (p->rank < 1 || p->rank > MOST_AXES || !read_tuple(shape, p->rank, p->lengths) || !read_tuple(starts, p->rank, p->starts)) return 0;
    Py_ssize_t all = 1;
    p->points = 1;
    for (Py_ssize_t a = 0; a < p->rank; a++) {
        Py_ssize_t n = p->lengths[a], start = p->starts[a];
        if (n < 1 || n > MOST || start < 0 || start > 1 || start >= n || all > PY_SSIZE_T_MAX / 64 / (n + 2)) return 0;
        p->counts[a] = (n - start + 1) / 2;
        p->points *= p->counts[a];
        all *= n + 2;
    }
    return 1;
}

/* Whether any byte is not 0. */
static inline int any_byte(const void *bytes, Py_ssize_t n) {
    const char *at = bytes;
    uint64_t any = 0, x;
    /* The last eight may be among those before. */
    for (Py_ssize_t i = 0; n >= 8 && i < n; i += 8) {
        memcpy(&x, at + (i < n - 8 ? i : n - 8), 8);
        any |= x;
    }
    for (Py_ssize_t i = 0; n < 8 && i < n; i++) any |= (uint8_t)at[i];
    return any != 0;
}

/* What is known of a parity: sizes (uint16, V variables with a border), neighbours in them, parts of the mean for each sum of
   these, hints (uint16, or empty) and their parts, contexts of each size, the first one; whether variables are `related`. Of rows
   along the last axis, whether any size (`live`, with the border) or hint is not 0; NULL where nobody has looked. */
typedef struct {
    const Py_buffer *sizes, *hints, *table, *classes;
    const uint8_t *live, *live_hints;
    Py_ssize_t variables, neighbours, places[MOST_NEIGHBOURS];
    unsigned short parts, base;
    int related;
} Known;

static inline int read_places(PyObject *places, Known *k) {
    k->neighbours = PyTuple_Check(places) ? PyTuple_Size(places) : -1;
    return k->neighbours >= 0 && k->neighbours <= MOST_NEIGHBOURS && read_tuple(places, k->neighbours, k->places);
}

/* Hold and read one phase for what is known: starts, places, table, parts, base. Gives 0 where its table is not held either, else
   whether all fits. */
int hold_phase(PyObject *one, PyObject *shape, Parity *p, Known *k, Py_buffer *table);
/* `told`: class and sign of each point, or NULL. `sums`: room for a row. */
int write_contexts(const Known *k, const Parity *p, const uint8_t *told, uint16_t *sums, uint16_t *out);

/* A guide (uint16) with a border along all axes but the first, a box of it from its first point on, places of neighbours as flat
   steps, weight of the point itself. */
typedef struct {
    Py_ssize_t rank, lengths[MOST_AXES + 1], counts[MOST_AXES + 1], neighbours, places[MOST_NEIGHBOURS];
    unsigned short weight;
} Guide;

/* `classes`: of every value. `sums`: room for a row of 32 bits. Lengths of buffers are in bytes. */
int write_hints(const Guide *g, const uint16_t *guide, Py_ssize_t len, const uint16_t *classes, uint32_t *sums, uint16_t *out,
                Py_ssize_t out_len);
/* As in neighbours.py; sizes reach CLIP from FAR on. */
#define LINEAR 64
#define OCTAVE 48
#define CLIP 511
#define FAR 43008

/* The size of an integer, for contexts. */
static inline uint16_t size_of(int64_t v) {
    if (v < LINEAR && v > -LINEAR) return (uint16_t)(v < 0 ? -v : v);
    if (v >= FAR || v <= -FAR) return CLIP;
    uint32_t u = (uint32_t)(v < 0 ? -v : v), k = 0;
    while (u >> k >= 2 * LINEAR) k++;
    return (uint16_t)(LINEAR + OCTAVE * k + (OCTAVE * (u - ((uint32_t)LINEAR << k)) >> k) / LINEAR);
}

/* Where a band lies in a grid (float64), and its sizes with a border; `live`: as above, set where something is stored, or NULL. */
typedef struct {
    const Py_buffer *sizes, *grid, *firsts;
    uint8_t *live;
    Py_ssize_t steps[MOST_AXES];
} Spot;

/* `values`: int64, or int16 (`narrow`; only to be stored). `expected`: of each, or NULL; sizes are those of the rest. */
int move_values(const Spot *s, const Parity *p, void *values, const int16_t *expected, int narrow, int store);

/* What is around a band: blocks (int16, points with a border, columns) of leaders and of variables to tell of, its own first. */
typedef struct {
    Py_buffer leads[MOST_PLACES + 1], told[MOST_PLACES + 1];
    Py_ssize_t bands, told_bands, first;
    int leaders;
    const Py_buffer *limits;
    float off_from;
} Around;

/* Gives whether all are held; what is held must be released in any case. */
int hold_around(PyObject *leads, PyObject *told, Around *a);
void release_around(Around *a);

/* Places around a point: band and step of each. */
typedef struct {
    Py_ssize_t count, at[MOST_PLACES][2];
} Places;

static inline int read_around(PyObject *places, Places *p) {
    p->count = PyTuple_Check(places) ? PyTuple_Size(places) : -1;
    if (p->count < 0 || p->count > MOST_PLACES) return 0;
    for (Py_ssize_t n = 0; n < p->count; n++)
        if (!read_tuple(PyTuple_GetItem(places, n), 2, p->at[n])) return 0;
    return 1;
}

/* What is expected of values: class (times 2) and sign, the nearest integer from `off_from` on; whether any is not 0. */
typedef struct {
    uint8_t *codes;
    int16_t *values;
    int any;
} Expected;

/* Write what is expected of so many variables; where nothing is, `out` stays as it is. */
int expect_values(const Around *a, const Places *places, const Parity *p, Py_ssize_t rows, Expected *out);
int note_values(const Py_buffer *own, const Parity *p, Py_ssize_t first, Py_ssize_t rows, const void *values, int narrow);
/* Join rests (int64, or int16 if `narrow`) with what is expected, in place, where there is room for int64; gives whether they
   are narrow still. */
int join_values(void *values, const Expected *expected, Py_ssize_t n, int narrow);

#define MOST_VIEWS 66

/* Sizes of another band: by axis, where each index of the band is seen there. */
typedef struct {
    Py_buffer sizes, there;
    Py_ssize_t shape[MOST_AXES], ratios[MOST_AXES], *index[MOST_AXES], all, factor;
    /* Whether the last axis is seen as it is. */
    int plain;
} View;

/* Other bands as they are seen from a band of that shape, the siblings last; room for rows of sums. */
typedef struct {
    View views[MOST_VIEWS];
    int num_views, num_siblings;
    Py_ssize_t rank, shape[MOST_AXES], at[MOST_AXES], all;
    uint32_t *sums, *siblings;
} Views;

/* Make room for so many views of a band of that shape, none of them held; gives NULL where they do not fit. */
Views *make_views(PyObject *shape, Py_ssize_t num);
/* Whether so many variables of the band can be told of; to be asked once. */
int check_views(Views *k, Py_ssize_t variables);
void release_views(Views *k);
/* Write what views and the guide (or NULL, where there are views) tell some variables; note of rows whether that is not 0, if
   `live` is not NULL. */
void join_views(Views *k, Py_ssize_t first, Py_ssize_t variables, const uint16_t *guide, const uint16_t *classes, uint16_t *out,
                uint8_t *live);
/* Copy sizes without their border, and write the guide after these variables, which may be the one before (or NULL). `live`: of
   rows of sizes with their border, or NULL where nobody has looked. */
void settle_sizes(const uint16_t *known, const uint8_t *live, Py_ssize_t rank, const Py_ssize_t *shape, Py_ssize_t variables,
                  const uint16_t *guide, uint32_t *sums, uint16_t *sizes, uint16_t *out);

enum { FINE, NO_TABLE, NO_BITS, TOO_LARGE, BAD_CONTEXT, TOO_WIDE };

/* The stream, as a reader stands in it. */
typedef struct {
    const uint32_t *words;
    const uint8_t *bits;
    uint64_t state, words_left, bit, num_bits;
} Stream;

typedef struct {
    const int64_t *labels, *constant;
    const uint8_t *token_at;
    const uint16_t *left;
    uint8_t *used;
    Py_ssize_t num, tables;
    Stream stream;
} Reader;

/* Buffers of a stream, as `take` says. */
enum { LABELS, CONSTANT, TOKEN_AT, LEFT, WORDS, BITS, STATE, USED, STREAM_BUFFERS };

int reader_of(const Py_buffer *b, Reader *r);
void leave_stream(const Reader *r, const Py_buffer *b);
/* Read n values for their contexts; gives what is wrong, and stands as before where one does not fit. `room`: for two numbers of
   each context that there is. `sorted`: for the values. */
int read_values(Reader *r, const uint16_t *contexts, Py_ssize_t n, int narrow, Py_ssize_t *room, void *sorted, void *out);

#endif
