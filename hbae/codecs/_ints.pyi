from hbae.arrays import Array
from hbae.codecs.contexts import Buffers

def read(q: Array, live: Array, shape: tuple[int, ...], first: int, classes: Array, stream: Buffers) -> int: ...
