from hbae.arrays import Array
from hbae.codecs.contexts import Buffers
from hbae.codecs.neighbours import FixedPhase

Slab = tuple[tuple[int, ...], tuple[FixedPhase, ...]]

def read(
    q: Array,
    shape: tuple[int, ...],
    under: Array,
    buckets: Array,
    slabs: tuple[Slab | None, ...],
    classes: Array,
    guides: Array,
    stream: Buffers,
) -> int: ...
def list(
    q: Array,
    shape: tuple[int, ...],
    under: Array,
    buckets: Array,
    slabs: tuple[Slab | None, ...],
    classes: Array,
    guides: Array,
    values: Array,
    contexts: Array,
    ends: Array,
) -> int: ...
