from hbae.arrays import Array

def classify(
    values: Array,
    shape: tuple[int, ...],
    starts: tuple[int, ...],
    steps: tuple[int, ...],
    axes: tuple[int, ...],
    class_of: Array,
    classes: Array,
    counts: Array,
) -> None: ...
def settle(values: Array, classes: Array, lowest: Array) -> None: ...
