from hbae.arrays import Array

def phase_contexts(
    near: Array,
    shape: tuple[int, ...],
    starts: tuple[int, ...],
    places: tuple[int, ...],
    table: Array,
    hints: Array,
    parts: int,
    classes: Array,
    base: int,
    told: Array,
    related: bool,
    out: Array,
) -> None: ...
def move(
    near: Array,
    shape: tuple[int, ...],
    starts: tuple[int, ...],
    values: Array,
    expected: Array,
    grid: Array,
    firsts: Array,
    steps: tuple[int, ...],
    store: bool,
    narrow: bool,
) -> None: ...
def hints(
    guide: Array,
    shape: tuple[int, ...],
    box: tuple[int, ...],
    places: tuple[int, ...],
    weight: int,
    classes: Array,
    out: Array,
) -> None: ...
def sizes(values: Array, out: Array) -> None: ...
