from hbae.arrays import Array

def sort_tokens(
    values: Array, contexts: Array, counts: Array, tokens: Array, ends: Array, nbits: Array, raw: Array
) -> tuple[int, int]: ...
def take(
    contexts: Array,
    labels: Array,
    const: Array,
    token_at: Array,
    left: Array,
    words: Array,
    bits: bytes,
    state: Array,
    used: Array,
    out: Array,
) -> int: ...
