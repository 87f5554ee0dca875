from hbae.arrays import Array

def phase_contexts(
    near: Array,
    shape: tuple[int, ...],
    starts: tuple[int, ...],
    places: tuple[int, ...],
    weights: tuple[int, ...],
    table: Array,
    parent: Array,
    base: int,
    out: Array,
) -> None: ...
