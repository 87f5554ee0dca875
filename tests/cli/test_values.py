# SPDX-License-Identifier: MIT
"""Option values of several parts."""

from __future__ import annotations

import pytest
import typer

from hbae.cli.main import app
from hbae.cli.values import ListCommand, check_device, parse_block, parse_ranges, parse_window, split_list
from hbae.errors import ConfigError


def spread(name: str, line: str) -> str:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert isinstance(command, ListCommand)
    return " ".join(command.spread(line.split()))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("IN -o O --bound a=1 T:b=2 -f", "IN -o O --bound a=1 --bound T:b=2 -f"),
        ("--bound a=1 IN -o O", "--bound a=1 IN -o O"),
        ("-f --bound a=1 IN --vars T U", "-f --bound a=1 IN --vars T --vars U"),
        ("-o O IN --vars T U --json --bound a=1", "-o O IN --vars T --vars U --json --bound a=1"),
        ("IN --bound=a=1 b=2", "IN --bound=a=1 b=2"),
        ("IN --range T=-1:2 U=0:1", "IN --range T=-1:2 --range U=0:1"),
        ("IN --vars T -- U", "IN --vars T -- U"),
    ],
)
def test_lists_are_spread_after_the_file(line: str, expected: str) -> None:
    assert spread("compress", line) == expected


def test_all_inputs_of_train_stay_inputs() -> None:
    assert spread("train", "a b -o m --seed 3 c --vars T U") == "a b -o m --seed 3 c --vars T --vars U"


def test_good_values() -> None:
    assert parse_block(None) is None
    assert parse_block("8x8x4") == parse_block("8,8,4") == (8, 8, 4)
    assert parse_ranges(["T=-1e3:5", "a/b=0:1"]) == {"T": (-1e3, 5.0), "a/b": (0.0, 1.0)}
    assert parse_window(["time=0:10,lat=3:40", "lon=1:2"]) == {"time": (0, 10), "lat": (3, 40), "lon": (1, 2)}
    assert split_list(["T,U", "Y_*"]) == ("T", "U", "Y_*")
    assert check_device("cpu") == "cpu"


@pytest.mark.parametrize("text", ["", "8x", "0x4", "-1", "axb"])
def test_bad_block(text: str) -> None:
    with pytest.raises(ConfigError, match="block"):
        parse_block(text)


@pytest.mark.parametrize("texts", [["T"], ["T=1"], ["=1:2"], ["T=a:b"], ["T=0:1", "T=0:2"]])
def test_bad_range(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="range"):
        parse_ranges(texts)


@pytest.mark.parametrize("texts", [["time"], ["time=1"], ["time=-1:2"], ["time=1:2:3"], ["time=0:1,time=0:2"]])
def test_bad_window(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="window"):
        parse_window(texts)


def test_unknown_device() -> None:
    with pytest.raises(ConfigError, match="device"):
        check_device("tpu")
