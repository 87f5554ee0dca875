# SPDX-License-Identifier: MIT
"""E3SM-like climate output: 6-hourly sea level pressure, surface temperature and sea surface temperature on a globe.

Seasons, days, travelling waves along the storm tracks, mountains and coasts, and weather: red noise with an energy
spectrum of k^-3 that drifts eastwards and forgets its small scales first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError
from hbae.synth.stream import Piece, Stream, StreamVariable
from hbae.synth.turbulence import random_field, wavenumbers

FILL = 1e20
HOURS = 6.0
YEAR = 365.2425
FREEZING = 271.35


@dataclass(frozen=True, kw_only=True)
class E3SMConfig:
    """Size and climate of an E3SM-like run.

    ``steps`` are ``HOURS`` = 6 hours apart, from 1 January 2001; ``land`` is the share of the grid that is land
    besides Antarctica; ``memory`` is the time (days) after which the largest weather patterns are forgotten;
    ``weather`` scales all red noise and travelling waves.
    """

    steps: int = 240
    nlat: int = 180
    nlon: int = 360
    seed: int = 0
    land: float = 0.28
    memory: float = 8.0
    weather: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or min(self.nlat, self.nlon) < 4:
            raise ConfigError(f"e3sm: {self.steps} steps of {self.nlat} x {self.nlon} points; at least 1 step of 4 x 4")
        if not 0 < self.land < 1 or self.memory <= 0 or self.weather < 0:
            raise ConfigError("e3sm: land must be between 0 and 1, memory above 0, weather 0 or more")


@dataclass(frozen=True)
class Globe:
    """What does not change: latitudes and longitudes (degrees), land (bool) and elevation (m), both (lat, lon)."""

    lat: Array
    lon: Array
    land: Array
    elevation: Array


class RedNoise:
    """Weather (lat, lon) of mean 0 and standard deviation about 1: energy k^-3, drifting, a new state at each step.

    A wave of number k is forgotten after ``memory`` x (k / k_min)^(-2/3) days; ``drift`` is eastward, domains a day.
    """

    def __init__(self, globe: Globe, rng: np.random.Generator, *, memory: float, drift: float, k_min: float) -> None:
        self.rng = rng
        self.shape = (2 * len(globe.lat), len(globe.lon))  # twice the latitudes: the poles are no neighbours
        k = np.maximum(wavenumbers(self.shape), 0.5)
        energy = np.where(k < k_min, (k / k_min) ** 2, (k / k_min) ** -3.0)
        amplitude = np.sqrt(energy / k)
        amplitude[0, 0] = 0.0
        halves = np.full(amplitude.shape[1], 2.0)
        halves[0] = 1.0
        if self.shape[1] % 2 == 0:
            halves[-1] = 1.0
        points = self.shape[0] * self.shape[1]
        self.amplitude = amplitude / np.sqrt((amplitude**2 * halves).sum() / points)
        days = HOURS / 24.0
        keep = np.exp(-days / (memory * np.maximum(k / k_min, 1.0) ** (-2 / 3)))
        turn = np.exp(-2j * np.pi * drift * days * np.arange(amplitude.shape[1]))
        self.keep, self.fresh = keep * turn[None, :], np.sqrt(1.0 - keep**2)
        self.waves = self._draw()

    def _draw(self) -> Array:
        return np.asarray(np.fft.rfft2(self.rng.standard_normal(self.shape)) * self.amplitude)

    def step(self) -> Array:
        """Give the field now, (lat, lon), and go on by one step."""
        out = np.fft.irfft2(self.waves, s=self.shape)[: self.shape[0] // 2]
        self.waves = self.keep * self.waves + self.fresh * self._draw()
        return np.asarray(out)


def e3sm_stream(config: E3SMConfig | None = None) -> Stream:
    """Describe an E3SM-like run: PSL (Pa), TS (K) and SST (K, 1e20 on land) over (time, lat, lon), float32.

    A piece is one time step.

    Raises
    ------
    ConfigError
        For sizes or shares that make no sense.
    """
    c = config or E3SMConfig()
    globe = make_globe(c)
    variables = (
        StreamVariable(name="PSL", units="Pa", long_name="sea level pressure"),
        StreamVariable(name="TS", units="K", long_name="surface temperature (radiative)"),
        StreamVariable(name="SST", units="K", long_name="sea surface temperature", fill=FILL),
    )
    days = np.arange(c.steps) * (HOURS / 24.0)
    return Stream(
        dims={"time": c.steps, "lat": c.nlat, "lon": c.nlon},
        variables=variables,
        coords={
            "time": (days, "days since 2001-01-01 00:00:00"),
            "lat": (globe.lat, "degrees_north"),
            "lon": (globe.lon, "degrees_east"),
        },
        pieces=lambda: _pieces(c, globe, days),
        count=c.steps,
        attrs={"title": "E3SM-like surface climate", "seed": c.seed},
    )


def make_globe(config: E3SMConfig) -> Globe:
    """Give the grid (centres of cells) and continents of a seed."""
    c = config
    rng = np.random.default_rng([c.seed, 1])
    lat = -90.0 + (np.arange(c.nlat) + 0.5) * (180.0 / c.nlat)
    lon = np.arange(c.nlon) * (360.0 / c.nlon)
    shape = (2 * c.nlat, c.nlon)
    plates = random_field(shape, rng, slope=-3.0, k_min=2.0)[: c.nlat]
    ridges = random_field(shape, rng, slope=-2.0, k_min=6.0)[: c.nlat]
    shore = np.quantile(plates, 1.0 - c.land)
    land = (plates > shore) | (lat[:, None] < -72.0)
    height = 900.0 * np.maximum(plates - shore, 0.0) * np.exp(0.5 * ridges)
    height += 2500.0 / (1.0 + np.exp((lat[:, None] + 76.0) / 1.5))
    return Globe(lat, lon, land, np.where(land, height, 0.0))


def _pieces(c: E3SMConfig, globe: Globe, days: Array) -> Iterator[Piece]:
    rng = np.random.default_rng([c.seed, 2])
    air = RedNoise(globe, rng, memory=c.memory, drift=0.02, k_min=4.0)
    heat = RedNoise(globe, rng, memory=c.memory, drift=0.01, k_min=4.0)
    sea = RedNoise(globe, rng, memory=40 * c.memory, drift=0.0, k_min=5.0)
    phases = rng.uniform(0, 2 * np.pi, 4)
    for step, day in enumerate(days):
        wave, lag = _waves(globe, float(day), phases)
        psl = _pressure(globe, float(day), c.weather * (wave + 450.0 * air.step()))
        sst = _sea(globe, float(day), c.weather * sea.step())
        ts = _surface(globe, float(day), sst, c.weather * (2.2 * heat.step() - 0.004 * lag))
        box = (slice(step, step + 1), slice(0, c.nlat), slice(0, c.nlon))
        values = {"PSL": psl, "TS": ts, "SST": np.where(globe.land, FILL, sst)}
        yield box, {name: x.astype(np.float32)[None] for name, x in values.items()}


def _waves(globe: Globe, day: float, phases: Array) -> tuple[Array, Array]:
    """Give the travelling waves (lat, lon), Pa, of both storm tracks, and the same a quarter of a wave to the west."""
    lat, lon = globe.lat[:, None], np.deg2rad(globe.lon)[None, :]
    track = np.exp(-(((np.abs(lat) - 50.0) / 14.0) ** 2)) * (1.0 + 0.3 * np.sign(lat) * _season(day))
    wave, lag = np.zeros((len(globe.lat), len(globe.lon))), np.zeros((len(globe.lat), len(globe.lon)))
    for number, phase in zip(range(4, 8), phases, strict=True):
        angle = number * lon - 2 * np.pi * day * number / 36.0 + phase + 0.02 * number * np.abs(lat)
        growth = 350.0 * (1.0 + 0.5 * np.sin(2 * np.pi * day / (11.0 + number) + phase))
        wave += growth * track * np.cos(angle)
        lag += growth * track * np.sin(angle)
    return wave, lag


def _season(day: float) -> float:
    """Give the season of the north: 1 in the middle of January, -1 in July."""
    return float(np.cos(2 * np.pi * (day - 15.0) / YEAR))


def _hour(globe: Globe, day: float) -> Array:
    """Give the local solar time (1, lon) as an angle: 0 at midnight."""
    return np.asarray(2 * np.pi * (day % 1.0) + np.deg2rad(globe.lon))[None, :]


def _pressure(globe: Globe, day: float, weather: Array) -> Array:
    lat = np.deg2rad(globe.lat)[:, None]
    belts = 101100.0 + 700.0 * np.cos(2 * (np.abs(lat) - 0.6)) * np.cos(lat) - 900.0 * np.sin(lat) ** 6 * (lat < 0)
    monsoon = 500.0 * _season(day) * np.sin(2 * lat) * np.where(globe.land, 1.0, -0.3)
    tide = 120.0 * np.cos(2 * (_hour(globe, day) - 2.6)) * np.cos(lat) ** 3
    calm = 0.35 + 0.65 * np.sin(np.abs(lat)) ** 2
    return np.asarray(belts + monsoon + tide + calm * weather + 0.08 * globe.elevation)


def _sea(globe: Globe, day: float, noise: Array) -> Array:
    lat = np.deg2rad(globe.lat)[:, None]
    season = -3.5 * _season(day - 45.0) * np.sin(2 * lat)
    gyres = 1.5 * np.sin(2 * np.deg2rad(globe.lon))[None, :] * np.cos(lat)
    return np.asarray(np.maximum(301.0 - 34.0 * np.sin(lat) ** 2 + season + gyres + 0.9 * noise, FREEZING))


def _surface(globe: Globe, day: float, sst: Array, weather: Array) -> Array:
    """Give TS: that of the sea (colder where frozen), and of land with its days, seasons and mountains."""
    lat = np.deg2rad(globe.lat)[:, None]
    frozen = 12.0 * (sst <= FREEZING) * np.maximum(1.0 + np.sign(lat) * _season(day - 20.0), 0.2)
    sea = sst - frozen + 0.15 * weather
    angle = _hour(globe, day) - 2 * np.pi * 14.0 / 24.0
    diurnal = np.cos(lat) * (6.0 * np.cos(angle) + 1.5 * np.cos(2 * angle))
    season = -16.0 * _season(day - 10.0) * np.sin(lat)
    land = 302.0 - 42.0 * np.sin(lat) ** 2 + season + diurnal - 0.0060 * globe.elevation + weather
    return np.asarray(np.where(globe.land, land, sea))
