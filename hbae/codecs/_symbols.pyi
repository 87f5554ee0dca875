from hbae.arrays import Array

def first_tokens(const: Array, left: Array, out: Array) -> None: ...
def sort_tokens(
    values: Array, contexts: Array, counts: Array, tokens: Array, runs: Array, nbits: Array, raw: Array
) -> tuple[int, int, int]: ...
def put(tokens: Array, runs: Array, labels: Array, const: Array, left: Array, state: Array, words: Array) -> int: ...
def take(
    contexts: Array,
    out: Array,
    narrow: bool,
    labels: Array,
    const: Array,
    token_at: Array,
    left: Array,
    words: Array,
    bits: bytes,
    state: Array,
    used: Array,
) -> int: ...
