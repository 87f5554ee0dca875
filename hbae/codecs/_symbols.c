/* SPDX-License-Identifier: MIT
 *
 * One step of symbols with contexts: sorted by context and made tokens, or read back from rANS words and raw bits. Integers
 * only, the same as the NumPy code in hbae/codecs/contexts.py and tokens.py; the stream is that of docs/format.md.
 */
#include "_sets.h"

#include <stdlib.h>
#include <string.h>

#define TABLE_BITS 14
#define TABLE_SUM (1 << TABLE_BITS)
/* Slots of a table of which the first one's token is stored. */
#define BUCKET_BITS 4
#define BUCKETS (TABLE_SUM >> BUCKET_BITS)
#define DIRECT 32
#define MAX_TOKENS 146
#define ENDS (MAX_TOKENS + 1)
#define LARGEST ((int64_t)1 << 61)

/* Of int16 values, so that their signs can be changed. */
#define NARROW 32767

/* The contexts of a step: where the values of each start when sorted, where they end, the first and last one that occurs. */
typedef struct {
    Py_ssize_t *starts, *ends, first, last;
} Sorted;

/* Values whose contexts are looked at together. */
#define BLOCK 8

static inline int block_alike(const uint16_t *contexts) {
    uint64_t x[2], all = contexts[0] * 0x0001000100010001ULL;
    memcpy(x, contexts, sizeof x);
    return x[0] == all && x[1] == all;
}

FOR_ANY_UNIT static void find_range(const uint16_t *contexts, Py_ssize_t n, uint16_t *lowest, uint16_t *highest) {
    uint16_t low = 0xFFFF, high = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        low = contexts[i] < low ? contexts[i] : low;
        high = contexts[i] > high ? contexts[i] : high;
    }
    *lowest = low, *highest = high;
}

/* Count the contexts in `room` for two numbers of each; gives what is wrong. */
static int sort_contexts(Sorted *s, const uint16_t *contexts, Py_ssize_t n, Py_ssize_t num, Py_ssize_t *room) {
    s->starts = room;
    s->ends = room + num;
    uint16_t low, high;
    find_range(contexts, n, &low, &high);
    if (n && high >= num) return BAD_CONTEXT;
    s->first = n ? low : 0, s->last = n ? high : -1;
    for (Py_ssize_t c = s->first; c <= s->last; c++) s->ends[c] = 0;
    /* One after the other, equal contexts would wait for each other's count. */
    Py_ssize_t at = 0;
    for (; n - at >= BLOCK; at += BLOCK)
        if (block_alike(contexts + at))
            s->ends[contexts[at]] += BLOCK;
        else
            for (Py_ssize_t i = at; i < at + BLOCK; i++) s->ends[contexts[i]]++;
    for (; at < n; at++) s->ends[contexts[at]]++;
    Py_ssize_t total = 0;
    for (Py_ssize_t c = s->first; c <= s->last; c++) {
        s->starts[c] = total;
        s->ends[c] = total += s->ends[c];
    }
    return FINE;
}

static int bit_length(uint64_t u) {
    int n = 0;
    while (u) {
        u >>= 1;
        n++;
    }
    return n;
}

PyDoc_STRVAR(sort_doc,
             "sort_tokens(values, contexts, counts, tokens, runs, nbits, raw)\n--\n\n"
             "Write the tokens of int64 values sorted by uint16 context (stable), and count them; give (fault, number of\n"
             "runs, number of raw values).\n\n"
             "`counts`: int64 (contexts, 146), added to. `tokens`: uint8. `runs`: int64, context and end of each run, room\n"
             "for all. `nbits` (int64), `raw` (uint64): bits of the large ones, in sorted order.");

static PyObject *sort_tokens(PyObject *self, PyObject *args) {
    Py_buffer values, contexts, counts, tokens, runs, nbits, raw;
    if (!PyArg_ParseTuple(args, "y*y*w*w*w*w*w*", &values, &contexts, &counts, &tokens, &runs, &nbits, &raw)) return NULL;
    Py_ssize_t n = contexts.len / 2, num = counts.len / 8 / MAX_TOKENS, large = 0, found = 0;
    int good = values.len == n * 8 && contexts.len == n * 2 && tokens.len == n &&
               runs.len / 16 >= (n < num ? n : num) && counts.len == num * MAX_TOKENS * 8 && nbits.len == n * 8 &&
               raw.len == n * 8;
    int fault = FINE;
    int64_t *sorted = good ? malloc((size_t)(n ? n : 1) * sizeof(int64_t)) : NULL;
    Py_ssize_t *room = good ? malloc((size_t)(2 * num + 1) * sizeof(Py_ssize_t)) : NULL;
    if (sorted && room) {
        Py_BEGIN_ALLOW_THREADS;
        Sorted order;
        const uint16_t *context = contexts.buf;
        const int64_t *value = values.buf;
        uint8_t *token = tokens.buf;
        int64_t *run = runs.buf;
        fault = sort_contexts(&order, context, n, num, room);
        if (fault == FINE) {
            for (Py_ssize_t i = 0; i < n; i++) sorted[order.starts[context[i]]++] = value[i];
            Py_ssize_t i = 0;
            for (Py_ssize_t c = order.first; c <= order.last && fault == FINE; c++) {
                if (i == order.ends[c]) continue;
                run[2 * found] = c;
                run[2 * found++ + 1] = order.ends[c];
                int64_t *seen = (int64_t *)counts.buf + c * MAX_TOKENS;
                for (; i < order.ends[c]; i++) {
                    int64_t v = sorted[i];
                    if (v <= -LARGEST || v >= LARGEST) {
                        fault = TOO_LARGE;
                        break;
                    }
                    uint64_t u = ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
                    int t = (int)u;
                    if (u >= DIRECT) {
                        int low = bit_length(u) - 2;
                        t = DIRECT + 2 * (low - 4) + (int)((u >> low) & 1);
                        ((int64_t *)nbits.buf)[large] = low;
                        ((uint64_t *)raw.buf)[large++] = u & (((uint64_t)1 << low) - 1);
                    }
                    token[i] = (uint8_t)t;
                    seen[t]++;
                }
            }
        }
        Py_END_ALLOW_THREADS;
    } else if (good)
        PyErr_NoMemory();
    else
        PyErr_SetString(PyExc_ValueError, "sort_tokens: buffers do not fit");
    free(room);
    free(sorted);
    PyBuffer_Release(&values);
    PyBuffer_Release(&contexts);
    PyBuffer_Release(&counts);
    PyBuffer_Release(&tokens);
    PyBuffer_Release(&runs);
    PyBuffer_Release(&nbits);
    PyBuffer_Release(&raw);
    if (PyErr_Occurred()) return NULL;
    return Py_BuildValue("inn", fault, found, large);
}

PyDoc_STRVAR(put_doc,
             "put(tokens, runs, labels, const, left, state, words)\n--\n\n"
             "Code the tokens of one step from the last to the first; give how many words it took.\n\n"
             "`tokens`: uint8. `runs`: int64, context and end of each run. `labels`, `const`, `left`: as for take. `state`:\n"
             "uint64, of the rANS coder. `words`: uint32, room for one of each token.");

static PyObject *put(PyObject *self, PyObject *args) {
    Py_buffer b[7];
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*w*w*", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6)) return NULL;
    Py_ssize_t n = b[0].len, num_runs = b[1].len / 16, num = b[2].len / 8, tables = b[3].len / 8, written = 0;
    const uint8_t *tokens = b[0].buf;
    const int64_t *runs = b[1].buf, *labels = b[2].buf, *constant = b[3].buf;
    uint32_t *words = b[6].buf;
    int good = b[1].len == num_runs * 16 && b[2].len == num * 8 && b[3].len == tables * 8 &&
               b[4].len == tables * ENDS * 2 && b[5].len == 8 && b[6].len / 4 >= n;
    for (Py_ssize_t r = 0; good && r < num_runs; r++) {
        int64_t c = runs[2 * r], end = runs[2 * r + 1];
        good = c >= 0 && c < num && labels[c] >= 0 && labels[c] < tables && end > (r ? runs[2 * r - 1] : 0) && end <= n;
    }
    good = good && (num_runs ? runs[2 * num_runs - 1] : 0) == n;
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        uint64_t state = *(uint64_t *)b[5].buf;
        for (Py_ssize_t r = num_runs - 1; r >= 0 && good; r--) {
            int64_t label = labels[runs[2 * r]], first = r ? runs[2 * r - 1] : 0;
            if (constant[label] >= 0) continue;
            const uint16_t *left = (const uint16_t *)b[4].buf + label * ENDS;
            for (int64_t i = runs[2 * r + 1] - 1; i >= first; i--) {
                int t = tokens[i];
                uint64_t start = t < MAX_TOKENS ? (uint64_t)left[t] << 10 : 0;
                uint64_t f = t < MAX_TOKENS ? ((uint64_t)left[t + 1] << 10) - start : 0;
                if (f == 0 || f > 0xFFFFFF) {
                    good = 0;
                    break;
                }
                if (state >> 40 >= f) {
                    words[written++] = (uint32_t)state;
                    state >>= 32;
                }
                state = (state / f) << 24 | (start + state % f);
            }
        }
        *(uint64_t *)b[5].buf = state;
        Py_END_ALLOW_THREADS;
    }
    if (!good) PyErr_SetString(PyExc_ValueError, "put: buffers do not fit");
    for (int k = 0; k < 7; k++) PyBuffer_Release(b + k);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromSsize_t(written);
}

static inline void refill(Stream *s) {
    if (s->state >> 32 == 0 && s->words_left) s->state = s->state << 32 | s->words[--s->words_left];
}

static inline int token_of(Stream *s, const uint8_t *token_at, const uint16_t *left) {
    uint32_t slot = (uint32_t)(s->state & 0xFFFFFF);
    int t = token_at[slot >> (10 + BUCKET_BITS)];
    while (t < MAX_TOKENS - 1 && left[t + 1] <= slot >> 10) t++;
    uint64_t start = (uint64_t)left[t] << 10, f = ((uint64_t)left[t + 1] << 10) - start;
    s->state = (s->state >> 24) * f + slot - start;
    refill(s);
    return t;
}

/* Pass by zeros, whose token is the first: a guess that is mostly right waits for no table. How many, at most n. */
static inline Py_ssize_t zeros_ahead(Stream *s, uint64_t share, Py_ssize_t n) {
    Py_ssize_t k = 0;
    for (; k < n && (s->state & 0xFFFFFF) < share; k++) {
        s->state = (s->state >> 24) * share + (s->state & 0xFFFFFF);
        refill(s);
    }
    return k;
}

/* So many raw bits (4 to 60), highest first; they are there. */
static inline uint64_t next_bits(Stream *s, int n) {
    const uint8_t *from = s->bits + (s->bit >> 3);
    int skip = (int)(s->bit & 7), got = 8 - skip;
    uint64_t raw = *from & (0xFFu >> skip);
    for (; got + 8 <= n; got += 8) raw = raw << 8 | *++from;
    s->bit += (uint64_t)n;
    if (got >= n) return raw >> (got - n);
    return raw << (n - got) | *++from >> (8 - (n - got));
}

static inline int value_of(Stream *s, int t, int64_t *v) {
    uint64_t u = (uint64_t)t;
    if (t >= DIRECT) {
        int low = (t - DIRECT) / 2 + 4;
        if (s->num_bits - s->bit < (uint64_t)low) return NO_BITS;
        uint64_t raw = next_bits(s, low);
        u = (uint64_t)(2 | ((t - DIRECT) & 1)) << low | raw;
    }
    *v = (int64_t)(u >> 1) ^ -(int64_t)(u & 1);
    return FINE;
}

/* Read a step's values, sorted (a list of zeros) and in their order; gives what is wrong. */
#define READ_STEP(NAME, INT)                                                                                       \
    static int NAME(Reader *k, const Sorted *order, const uint16_t *contexts, Py_ssize_t n, INT *sorted, INT *out) { \
        Py_ssize_t i = 0;                                                                                          \
        for (Py_ssize_t c = order->first; c <= order->last; c++) {                                                 \
            Py_ssize_t end = order->ends[c];                                                                       \
            if (i == end) continue;                                                                                \
            k->used[c] = 1;                                                                                        \
            int64_t label = k->labels[c];                                                                          \
            if (label < 0 || label >= k->tables) return NO_TABLE;                                                  \
            const uint8_t *token_at = k->token_at + label * BUCKETS;                                               \
            const uint16_t *left = k->left + label * ENDS;                                                         \
            int fixed = (int)k->constant[label];                                                                   \
            uint64_t zeros = fixed < 0 && left[1] > TABLE_SUM / 2 ? (uint64_t)left[1] << 10 : 0;                   \
            while (i < end) {                                                                                      \
                if (zeros) {                                                                                       \
                    i += zeros_ahead(&k->stream, zeros, end - i);                                                  \
                    if (i == end) break;                                                                           \
                }                                                                                                  \
                int64_t v;                                                                                         \
                if (value_of(&k->stream, fixed >= 0 ? fixed : token_of(&k->stream, token_at, left), &v)) return NO_BITS; \
                if (sizeof(INT) == 2 && (v > NARROW || v < -NARROW)) return TOO_WIDE;                              \
                sorted[i++] = (INT)v;                                                                              \
            }                                                                                                      \
        }                                                                                                          \
        for (i = 0; n - i >= BLOCK; i += BLOCK)                                                                    \
            if (block_alike(contexts + i)) {                                                                       \
                memcpy(out + i, sorted + order->starts[contexts[i]], BLOCK * sizeof(INT));                         \
                order->starts[contexts[i]] += BLOCK;                                                               \
            } else                                                                                                 \
                for (Py_ssize_t j = i; j < i + BLOCK; j++) out[j] = sorted[order->starts[contexts[j]]++];          \
        for (; i < n; i++) out[i] = sorted[order->starts[contexts[i]]++];                                          \
        return FINE;                                                                                               \
    }
READ_STEP(read_wide, int64_t)
READ_STEP(read_narrow, int16_t)

int reader_of(const Py_buffer *b, Reader *r) {
    Py_ssize_t num = b[LABELS].len / 8, tables = b[CONSTANT].len / 8;
    const int64_t *constant = b[CONSTANT].buf;
    const uint64_t *state = b[STATE].buf;
    int good = b[LABELS].len == num * 8 && b[CONSTANT].len == tables * 8 && b[TOKEN_AT].len == tables * BUCKETS &&
               b[LEFT].len == tables * ENDS * 2 && b[WORDS].len % 4 == 0 && b[STATE].len == 24 && b[USED].len == num;
    for (Py_ssize_t k = 0; good && k < tables; k++) good = constant[k] >= -1 && constant[k] < MAX_TOKENS;
    uint8_t last = 0;
    for (Py_ssize_t k = 0; good && k < b[TOKEN_AT].len; k++) {
        uint8_t t = ((const uint8_t *)b[TOKEN_AT].buf)[k];
        last = t > last ? t : last;
    }
    good = good && last < MAX_TOKENS;
    good = good && state[1] <= (uint64_t)b[WORDS].len / 4 && state[2] <= (uint64_t)b[BITS].len * 8;
    if (!good) return 0;
    r->labels = b[LABELS].buf, r->constant = constant, r->token_at = b[TOKEN_AT].buf, r->left = b[LEFT].buf;
    r->used = b[USED].buf, r->num = num, r->tables = tables;
    Stream s = {b[WORDS].buf, b[BITS].buf, state[0], state[1], state[2], (uint64_t)b[BITS].len * 8};
    r->stream = s;
    return 1;
}

void leave_stream(const Reader *r, const Py_buffer *b) {
    uint64_t *state = b[STATE].buf;
    state[0] = r->stream.state;
    state[1] = r->stream.words_left;
    state[2] = r->stream.bit;
}

int read_values(Reader *r, const uint16_t *contexts, Py_ssize_t n, int narrow, Py_ssize_t *room, void *sorted, void *out) {
    Sorted order;
    Stream before = r->stream;
    int fault = sort_contexts(&order, contexts, n, r->num, room);
    if (fault != FINE) return fault;
    memset(sorted, 0, (size_t)n * (narrow ? 2 : 8));
    fault = narrow ? read_narrow(r, &order, contexts, n, sorted, out) : read_wide(r, &order, contexts, n, sorted, out);
    if (fault == TOO_WIDE) r->stream = before;
    return fault;
}

PyDoc_STRVAR(take_doc,
             "take(contexts, out, narrow, labels, const, token_at, left, words, bits, state, used)\n--\n\n"
             "Read one step of values for uint16 contexts; give what is wrong (0: nothing).\n\n"
             "`out`: int16 (`narrow`: magnitudes below 2**15) or int64. `labels`: int64, table of each context (-1: none). `const`:\n"
             "int64, only token of each table (-1: several). `token_at`: uint8 (tables, 2**10), token of each 16th slot. `left`:\n"
             "uint16 (tables, 147), left ends of tokens. `state`: uint64, rANS state, words left, bits read; as before where a value\n"
             "does not fit. `used`: uint8, set for contexts that occur.");

static PyObject *take(PyObject *self, PyObject *args) {
    Py_buffer contexts, out, b[STREAM_BUFFERS];
    int narrow;
    if (!PyArg_ParseTuple(args, "y*w*py*y*y*y*y*y*w*w*", &contexts, &out, &narrow, b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7))
        return NULL;
    Reader r;
    int good = reader_of(b, &r), fault = FINE;
    Py_ssize_t n = contexts.len / 2, width = narrow ? 2 : 8;
    good = good && contexts.len == n * 2 && out.len == n * width;
    void *sorted = good ? malloc((size_t)(n * width + 1)) : NULL;
    Py_ssize_t *room = good ? malloc((size_t)(2 * r.num + 1) * sizeof(Py_ssize_t)) : NULL;
    if (sorted && room) {
        Py_BEGIN_ALLOW_THREADS;
        fault = read_values(&r, contexts.buf, n, narrow, room, sorted, out.buf);
        leave_stream(&r, b);
        Py_END_ALLOW_THREADS;
    } else if (good)
        PyErr_NoMemory();
    else
        PyErr_SetString(PyExc_ValueError, "take: buffers do not fit");
    free(room);
    free(sorted);
    PyBuffer_Release(&contexts);
    PyBuffer_Release(&out);
    for (int k = 0; k < STREAM_BUFFERS; k++) PyBuffer_Release(b + k);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromLong(fault);
}

PyDoc_STRVAR(first_doc,
             "first_tokens(const, left, out)\n--\n\n"
             "Write the token of each 16th slot of tables of more than one token (the others' are left).\n\n"
             "`const`, `left`: as for `take`. `out`: uint8 (tables, 2**10).");

static PyObject *first_tokens(PyObject *self, PyObject *args) {
    Py_buffer constant, left, out;
    if (!PyArg_ParseTuple(args, "y*y*w*", &constant, &left, &out)) return NULL;
    Py_ssize_t tables = constant.len / 8;
    if (constant.len == tables * 8 && left.len == tables * ENDS * 2 && out.len == tables * BUCKETS) {
        for (Py_ssize_t k = 0; k < tables; k++) {
            if (((const int64_t *)constant.buf)[k] >= 0) continue;
            const uint16_t *ends = (const uint16_t *)left.buf + k * ENDS;
            uint8_t *token = (uint8_t *)out.buf + k * BUCKETS;
            for (int slot = 0, t = 0; slot < BUCKETS; slot++) {
                while (t < MAX_TOKENS - 1 && ends[t + 1] <= slot << BUCKET_BITS) t++;
                token[slot] = (uint8_t)t;
            }
        }
    } else
        PyErr_SetString(PyExc_ValueError, "first_tokens: buffers do not fit");
    PyBuffer_Release(&constant);
    PyBuffer_Release(&left);
    PyBuffer_Release(&out);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"first_tokens", first_tokens, METH_VARARGS, first_doc},
                                {"sort_tokens", sort_tokens, METH_VARARGS, sort_doc},
                                {"put", put, METH_VARARGS, put_doc},
                                {"take", take, METH_VARARGS, take_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_symbols", "Compiled symbols.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__symbols(void) { return PyModule_Create(&module); }
