from collections.abc import Sequence

from hbae.arrays import Array

Phases = Sequence[tuple[tuple[int, ...], tuple[int, ...], Array, int, int]]
Stream = tuple[Array, Array, Array, Array, Array, bytes, Array, Array]

def read(
    sizes: Array,
    shape: tuple[int, ...],
    hints: Array,
    classes: Array,
    phases: Phases,
    spot: tuple[Array, Array, tuple[int, ...]],
    related: bool,
    around: tuple[Array, tuple[Array, ...], tuple[Array, ...], int, int, Array, float],
    places: tuple[tuple[tuple[int, int], ...], ...],
    stream: Stream,
) -> int: ...
def read_bands(
    bands: tuple[
        tuple[int, tuple[int, ...], tuple[int, ...], Phases, Phases, tuple[tuple[int, tuple[int, ...], int], ...]], ...
    ],
    live: Array,
    grid: Array,
    classes: Array,
    guide_classes: Array,
    stream: Stream,
) -> int: ...
