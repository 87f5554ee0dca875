from collections.abc import Sequence

from hbae.arrays import Array

def read(
    sizes: Array,
    shape: tuple[int, ...],
    hints: Array,
    classes: Array,
    phases: Sequence[tuple[tuple[int, ...], tuple[int, ...], Array, int, int]],
    spot: tuple[Array, Array, tuple[int, ...]],
    related: bool,
    around: tuple[Array, tuple[Array, ...], tuple[Array, ...], int, int, Array, float],
    places: tuple[tuple[tuple[int, int], ...], ...],
    stream: tuple[Array, Array, Array, Array, Array, bytes, Array, Array],
) -> int: ...
