# SPDX-License-Identifier: MIT
"""A reaction-diffusion solver (Gray-Scott) that compresses its fields while it runs, one archive for each MPI rank.

    mpirun -n 2 python examples/gray_scott.py --out DIR

Rows of a periodic square are shared out over the ranks; neighbours exchange one row before every step. Every
``--every`` steps u and v go to ``DIR/rank<r>.hbae``. If the run is killed, ``hbae repair DIR/rank<r>.hbae.part`` gives
what it had stored.

Equations and constants: J. E. Pearson, Complex patterns in a simple system, Science 261 (1993) 189-192.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

import hbae

DIFFUSION_U, DIFFUSION_V, FEED, KILL = 0.16, 0.08, 0.035, 0.065


def first_fields(size: int, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Give u and v at the start on some rows: u = 1 but for a disturbed square, the same for any number of ranks."""
    noise = np.random.default_rng(1).normal(0, 0.02, (2, size, size))
    inside = np.abs(np.arange(size) - size // 2) < size // 10 + 1
    square = inside[:, None] & inside[None, :]
    u, v = np.where(square, 0.5, 1.0) + noise[0] * square, np.where(square, 0.25, 0.0) + noise[1] * square
    return u[rows], v[rows]


def exchange(a: np.ndarray, comm: MPI.Comm) -> np.ndarray:
    """Give the rows with one row of each neighbour around them."""
    up, down = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    out = np.empty((len(a) + 2, a.shape[1]))
    out[1:-1] = a
    comm.Sendrecv(np.ascontiguousarray(a[-1]), down, recvbuf=out[0], source=up)
    comm.Sendrecv(np.ascontiguousarray(a[0]), up, recvbuf=out[-1], source=down)
    return out


def laplacian(a: np.ndarray, comm: MPI.Comm) -> np.ndarray:
    """Five-point Laplacian, periodic in both directions."""
    w = exchange(a, comm)
    return w[:-2] + w[2:] + np.roll(a, 1, axis=1) + np.roll(a, -1, axis=1) - 4 * a


def advance(u: np.ndarray, v: np.ndarray, comm: MPI.Comm) -> tuple[np.ndarray, np.ndarray]:
    """One explicit step."""
    reaction = u * v * v
    du = DIFFUSION_U * laplacian(u, comm) - reaction + FEED * (1 - u)
    dv = DIFFUSION_V * laplacian(v, comm) + reaction - (FEED + KILL) * v
    return u + du, v + dv


def main() -> None:
    """Run the solver and print what the archives save."""
    parser = argparse.ArgumentParser(description="Gray-Scott with compression in situ")
    parser.add_argument("--out", type=Path, required=True, help="folder for the archives")
    parser.add_argument("--size", type=int, default=192, help="points along each side")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--every", type=int, default=25, help="steps between two that are stored")
    parser.add_argument("--bound", default="nrmse=1e-3")
    args = parser.parse_args()
    comm = MPI.COMM_WORLD
    edges = [args.size * r // comm.size for r in range(comm.size + 1)]
    rows = slice(edges[comm.rank], edges[comm.rank + 1])
    args.out.mkdir(parents=True, exist_ok=True)
    u, v = first_fields(args.size, rows)
    stream = hbae.StreamWriter(
        args.out / f"rank{comm.rank}.hbae",
        args.bound,
        range={"u": (0.0, 1.0), "v": (0.0, 1.0)},
        dims={"u": ("y", "x"), "v": ("y", "x")},
        attrs={"": {"first_row": rows.start, "rows": args.size}},
        overwrite=True,
    )
    with stream as w:
        for step in range(args.steps + 1):
            if step % args.every == 0:
                w.append(step, {"u": u.astype("f4"), "v": v.astype("f4")})
            u, v = advance(u, v, comm)
        report = w.close()
    raw, size = (comm.reduce(n, root=0) for n in (report.raw_bytes, report.size))
    print(f"rank {comm.rank}: {report.steps} steps, {report.size:,} bytes, ratio {report.cr:.1f}", flush=True)
    comm.Barrier()
    if comm.rank == 0:
        print(f"all ranks: {raw:,} bytes in {size:,}, ratio {raw / size:.1f}", flush=True)


if __name__ == "__main__":
    main()
