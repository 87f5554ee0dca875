from hbae.arrays import Array

def classify(
    values: Array,
    shape: tuple[int, ...],
    places: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...],
    axes: tuple[int, ...],
    class_of: Array,
    classes: Array,
    counts: Array,
) -> None: ...
def settle(values: Array, classes: Array, lowest: Array) -> None: ...
