from hbae.arrays import Array

def expect(
    leads: tuple[Array, ...],
    told: tuple[Array, ...],
    shape: tuple[int, ...],
    starts: tuple[int, ...],
    places: tuple[tuple[int, int], ...],
    leaders: int,
    first: int,
    limits: Array,
    off_from: float,
    codes: Array,
    values: Array,
) -> None: ...
def join(values: Array, codes: Array, expected: Array) -> None: ...
def split(values: Array, codes: Array, expected: Array) -> None: ...
def note(
    own: Array, shape: tuple[int, ...], starts: tuple[int, ...], first: int, values: Array, narrow: bool
) -> None: ...
def see(
    own: Array,
    first: int,
    places: Array,
    steps: tuple[int, ...],
    ratios: tuple[int, ...],
    lasts: tuple[int, ...],
    shape: tuple[int, ...],
    out: Array,
) -> None: ...
