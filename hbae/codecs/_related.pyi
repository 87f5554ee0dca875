from hbae.arrays import Array

def expect(
    fields: Array,
    shape: tuple[int, ...],
    starts: tuple[int, ...],
    places: tuple[tuple[int, int], ...],
    leaders: int,
    first: int,
    limits: Array,
    out: Array,
) -> None: ...
def turn(values: Array, expected: Array) -> None: ...
