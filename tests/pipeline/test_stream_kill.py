# SPDX-License-Identifier: MIT
"""Streams that are killed, torn or damaged: every step that was stored comes back, and never a wrong one."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import hbae
from hbae.arrays import Array
from hbae.errors import FieldError, FormatError, OutputExistsError
from hbae.pipeline.stream.repair import read_left

LIMIT = 1e-2
PROGRAM = """
    import os
    import sys
    import numpy as np
    import hbae

    writer = hbae.StreamWriter

    def field(t, shape):
        y, x = np.meshgrid(*(np.arange(n) / 9 for n in shape), indexing="ij")
        return (np.sin(x + 0.1 * t) * np.cos(y - 0.05 * t)).astype("f4")

    def stream(path, count, shape, steps, names="uk"):
        with writer(path, "abs=1e-2", steps=steps) as w:
            for t in range(count):
                fields = {"u": field(t, shape), "k": np.full(shape, t)}
                w.append(t, {n: fields[n] for n in names})
                os.write(1, b"%0511d " % t)
"""


def fork(text: str, *args: str) -> str:
    """Run a Python program that can write streams; gives what it prints."""
    text = textwrap.dedent(PROGRAM) + textwrap.dedent(text)
    return subprocess.run([sys.executable, "-c", text, *args], capture_output=True, text=True, check=True).stdout


def field(t: int, shape: tuple[int, int] = (12, 10)) -> Array:
    """The field that the program writes."""
    y, x = np.meshgrid(*(np.arange(n) / 9 for n in shape), indexing="ij")
    return (np.sin(x + 0.1 * t) * np.cos(y - 0.05 * t)).astype("f4")


def steps_of(path: Path) -> int:
    """Check that an archive holds the first steps, and give their number."""
    assert hbae.verify(path).ok
    ds = hbae.decompress(path)
    n = ds.sizes["time"]
    assert ds["time"].values.tolist() == list(range(n))
    shape = ds["k"].shape[1:]
    assert ds["k"].values.tolist() == np.broadcast_to(np.arange(n)[:, None, None], (n, *shape)).tolist()
    if "u" in ds:
        u = np.stack([field(t, shape) for t in range(n)]).astype("f8")
        assert np.abs(ds["u"].values - u).max() <= LIMIT
    return n


def finish(path: Path) -> int:
    """Repair where there is no archive yet; gives the number of steps."""
    if not path.exists():
        try:
            hbae.repair(f"{path}.part")
        except (FieldError, FormatError) as e:
            said = str(e)
            assert any(k in said for k in ("no step was", "no such file", "before the first step")), said
            return 0
        assert [n for n in os.listdir(path.parent) if n.startswith(path.name)] == [path.name]
    return steps_of(path)


# A pipe of one page holds what is told of 8 steps: the stream waits for its reader and is not done before it is killed.
KILLS = """
    import fcntl
    import random
    import signal
    import time

    moments = random.Random(4)
    for k in range(10):
        read, write = os.pipe()
        fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, 4096)
        child = os.fork()
        if not child:
            os.dup2(write, 1)
            stream(f"{sys.argv[1]}/{k}.hbae", 60, (32, 30), 9)
            os._exit(0)
        os.close(write)
        stored, wanted = b"", moments.randint(1, 66)
        while stored.count(b" ") < min(wanted, 60):
            stored += os.read(read, 512)
        time.sleep(moments.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(read, 9999):
            stored += more
        print(len(stored.split()))
"""


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL at ten seeded moments, from the first step to closing."""
    stored = [int(n) for n in fork(KILLS, str(tmp_path)).split()]
    assert len(set(stored)) > 3
    for k, n in enumerate(stored):
        assert finish(tmp_path / f"{k}.hbae") >= n > 0


CRASHES = """
    def counted(name):
        real = getattr(os, name)
        def call(*args, **kwargs):
            global calls
            calls += 1
            if calls == last:
                os._exit(9)
            return real(*args, **kwargs)
        setattr(os, name, call)

    folder, last = sys.argv[1], 1
    for name in ("fsync", "replace", "link", "unlink", "chmod"):
        counted(name)
    while True:
        child = os.fork()
        if not child:
            calls = 0
            os.dup2(os.open(f"{folder}/{last}.log", os.O_WRONLY | os.O_CREAT), 1)
            stream(f"{folder}/{last}.hbae", 7, (5, 4), 3, "uk" if last % 6 == 0 else "k")
            os._exit(0)
        if not os.waitpid(child, 0)[1]:
            break
        last += 1
    print(last)
"""


def test_killed_before_every_call_that_makes_bytes_last(tmp_path: Path) -> None:
    """The process ends before its first, second, ... fsync, rename, link and removal."""
    count = int(fork(CRASHES, str(tmp_path)))
    assert count > 20
    found = []
    for k in range(1, count + 1):
        stored = (tmp_path / f"{k}.log").read_text().split()
        found.append(finish(tmp_path / f"{k}.hbae"))
        assert found[-1] >= len(stored), k
    assert set(found) == set(range(8))
    assert sorted(found) == found


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a stream leaves that was killed after 2 slabs of 2 steps and one step more."""
    path = tmp_path_factory.mktemp("left") / "a.hbae"
    w = hbae.StreamWriter(path, "abs=1e-2", steps=2, variables=("u",))
    for t in range(5):
        w.append(t, {"u": field(t, (3, 4)), "k": np.full((3, 4), t)})
    w.leave()
    return path.with_name("a.hbae.part")


def spoil(left: Path, folder: Path, part: bytes | None = None, journal: bytes | None = None) -> Path:
    """Copy what was left, with other bytes; gives the growing file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, given in ((left.name, part), (f"{left.name}.journal", journal)):
        (folder / name).write_bytes((left.with_name(name)).read_bytes() if given is None else given)
    return folder / left.name


def steps_left(part: Path) -> int | None:
    """Read with ``salvage`` and judge what lies in the journal; None where nothing can be had."""
    try:
        left = read_left(part, salvage=True)
    except FormatError:
        return None
    done = 2 * len(left.slabs)
    assert left.steps.tolist() == list(range(done, done + len(left.steps)))
    for k, t in enumerate(range(done, done + len(left.steps))):
        assert left.arrays["u"][k].tobytes() == field(t, (3, 4)).tobytes()
        assert (left.arrays["k"][k] == t).all()
    return done + len(left.steps)


def test_a_torn_journal_gives_the_steps_before(left: Path, tmp_path: Path) -> None:
    """Cut at every length; only the record that is cut is lost."""
    whole = left.with_name(f"{left.name}.journal").read_bytes()
    for n in range(len(whole) + 1):
        part = spoil(left, tmp_path / "x", journal=whole[:n])
        assert steps_left(part) == (5 if n == len(whole) else 4)
        if n < 36:
            with pytest.raises(FormatError, match="journal"):
                hbae.repair(part)
        elif n % 16 == 0 or n == len(whole):
            report = hbae.repair(part)
            assert (report.steps, report.cut) == ((5, 0) if n == len(whole) else (4, n - 36))
            assert steps_of(tmp_path / "x" / "a.hbae") == report.steps


def test_a_torn_part_gives_the_slabs_before(left: Path, tmp_path: Path) -> None:
    """Cut at every length: a slab that the journal has forgotten is missed, and never silently."""
    whole = left.read_bytes()
    found: list[int | None] = []
    for n in range(len(whole) + 1):
        part = spoil(left, tmp_path / "x", part=whole[:n])
        found.append(steps_left(part))
        if n < len(whole):
            with pytest.raises(FormatError):
                hbae.repair(part)
            assert part.stat().st_size == n
        if n % 200 == 0 and found[-1]:
            hbae.repair(part, salvage=True)
            assert steps_of(tmp_path / "x" / "a.hbae") == found[-1]
            assert part.exists()
    assert list(dict.fromkeys(found)) == [None, 0, 2, 5]


def test_a_torn_slab_is_still_in_the_journal(left: Path, tmp_path: Path) -> None:
    """Killed while a slab was written: its steps are taken from the journal, whatever lies in the growing file."""
    with hbae.StreamWriter(tmp_path / "b.hbae", "abs=1e-2", steps=2, variables=("u",)) as w:
        for t in range(3):
            w.append(t, {"u": field(t, (3, 4)), "k": np.full((3, 4), t)})
        held = {n: (tmp_path / n).read_bytes() for n in os.listdir(tmp_path)}
        journal, part = held["b.hbae.part.journal"], held["b.hbae.part"]
        w.append(3, {"u": field(3, (3, 4)), "k": np.full((3, 4), 3)})
        later = (tmp_path / "b.hbae.part").read_bytes()
    for n in range(len(part), len(later), 53):
        for torn in (later[:n], later[:n] + bytes(50), later[:n] + b"HBfr" * 9):
            broken = spoil(left, tmp_path / "x", part=torn, journal=journal)
            assert steps_left(broken) == 3
        assert hbae.repair(broken).steps == 3
        assert steps_of(tmp_path / "x" / "a.hbae") == 3


def test_bit_flips_are_detected(left: Path, tmp_path: Path) -> None:
    """A flipped bit is an error, or the torn end of the journal: never a wrong value."""
    journal = left.with_name(f"{left.name}.journal").read_bytes()
    part = left.read_bytes()
    chance = random.Random(8)
    for k in range(60):
        data = bytearray(journal if k % 3 == 0 else part)
        at = chance.randrange(8 * len(data))
        data[at // 8] ^= 1 << at % 8
        if k % 3:
            broken = spoil(left, tmp_path / "x", part=bytes(data))
            with pytest.raises(FormatError):
                hbae.repair(broken)
            assert steps_left(broken) in (None, 0, 2)
            assert broken.exists()
        else:
            broken = spoil(left, tmp_path / "x", journal=bytes(data))
            if at // 8 < 36:
                with pytest.raises(FormatError, match=r"damaged|another stream"):
                    hbae.repair(broken)
            else:
                report = hbae.repair(broken)
                assert (report.steps, report.cut) == (4, len(journal) - 36)
                assert steps_of(tmp_path / "x" / "a.hbae") == 4


def test_damage_before_a_good_record_is_no_torn_tail(tmp_path: Path) -> None:
    w = hbae.StreamWriter(tmp_path / "a.hbae", "abs=1e-2", steps=9, variables=("u",))
    for t in range(4):
        w.append(t, {"u": field(t, (3, 4)), "k": np.full((3, 4), t)})
    w.leave()
    journal = tmp_path / "a.hbae.part.journal"
    data = bytearray(journal.read_bytes())
    data[36 + (len(data) - 36) // 4 * 2 + 30] ^= 4
    journal.write_bytes(data)
    with pytest.raises(FormatError, match="record 2 of the journal is damaged; --salvage"):
        hbae.repair(tmp_path / "a.hbae.part")
    report = hbae.repair(tmp_path / "a.hbae.part", salvage=True)
    assert (report.steps, len(report.notes)) == (2, 1)
    assert steps_of(tmp_path / "a.hbae") == 2
    assert journal.exists()


def test_a_journal_of_another_stream_is_refused(left: Path, tmp_path: Path) -> None:
    w = hbae.StreamWriter(tmp_path / "b.hbae", "abs=1e-2", steps=2, variables=("u",))
    w.append(0, {"u": field(9, (3, 4)), "k": np.full((3, 4), 9)})
    w.leave()
    broken = spoil(left, tmp_path / "x", journal=(tmp_path / "b.hbae.part.journal").read_bytes())
    with pytest.raises(FormatError, match="another stream"):
        hbae.repair(broken)


def test_names(left: Path, tmp_path: Path) -> None:
    part = spoil(left, tmp_path / "x")
    with pytest.raises(FieldError, match="no such file"):
        hbae.repair(tmp_path / "none.part")
    (tmp_path / "x" / "a.hbae").write_text("mine")
    with pytest.raises(OutputExistsError):
        hbae.repair(part)
    assert hbae.repair(part, tmp_path / "b.hbae").steps == 5
    assert sorted(os.listdir(tmp_path / "x")) == ["a.hbae"]
    moved = spoil(left, tmp_path / "x").rename(tmp_path / "x" / "moved")
    with pytest.raises(FieldError, match=r"\.part"):
        hbae.repair(moved)
