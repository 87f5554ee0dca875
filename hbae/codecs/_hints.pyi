from hbae.arrays import Array

def join(
    views: tuple[tuple[Array, Array, tuple[int, ...], tuple[int, ...], int], ...],
    num_siblings: int,
    shape: tuple[int, ...],
    first: int,
    guide: Array,
    classes: Array,
    out: Array,
) -> None: ...
def settle(known: Array, shape: tuple[int, ...], guide: Array, sizes: Array, out: Array) -> None: ...
