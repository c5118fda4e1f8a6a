# SPDX-License-Identifier: BSD-3-Clause
"""Medians of interleaved samples, ratios of medians, and their 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

RESAMPLES = 2000
ALLOWED = 1.05


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def deviation(self) -> float:
        """The largest factor between 1 and a value of the interval."""
        return max(self.high, 1 / self.low)


def ratio(ours: Samples, theirs: Samples) -> Ratio:
    """Return the ratio of the medians. Its interval is a bootstrap over rounds: samples of one round stay paired."""
    rounds = np.random.default_rng(0).integers(len(ours), size=(RESAMPLES, len(ours)))
    ratios = np.median(ours[rounds], axis=1) / np.median(theirs[rounds], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Ratio(float(np.median(ours) / np.median(theirs)), float(low), float(high))


@dataclass(frozen=True)
class Cell:
    """The result of one cell of a benchmark: medians in ns per element, and the ratio to DPDK."""

    key: tuple[str, ...]
    ours: float
    dpdk: float
    ratio: Ratio
    noise: Ratio  # ratio of DPDK to itself

    @property
    def bound(self) -> float:
        """Limit of the ratio: ALLOWED, or this cell's noise if that is larger."""
        return max(ALLOWED, self.noise.deviation)

    @property
    def slower(self) -> bool:
        """True if the whole interval is above the limit."""
        return self.ratio.low > self.bound

    def data(self, fields: tuple[str, ...]) -> dict[str, Any]:
        return {
            **dict(zip(fields, self.key, strict=True)),
            "ours_ns": self.ours,
            "dpdk_ns": self.dpdk,
            "ratio": [self.ratio.value, self.ratio.low, self.ratio.high],
            "dpdk_again": [self.noise.value, self.noise.low, self.noise.high],
            "slower": self.slower,
        }


def cell(key: tuple[str, ...], samples: dict[str, Samples]) -> Cell:
    ours, dpdk, again = samples["ours"], samples["dpdk"], samples["dpdk_again"]
    return Cell(
        key=key,
        ours=float(np.median(ours)),
        dpdk=float(np.median(dpdk)),
        ratio=ratio(ours, dpdk),
        noise=ratio(again, dpdk),
    )


def cells(lines: Iterable[str]) -> list[Cell]:
    """Parse the program's lines: fields of the cell, subject, round and nanoseconds, separated by tabs."""
    samples: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for line in lines:
        *key, subject, _round, ns = line.rstrip("\n").split("\t")
        samples.setdefault(tuple(key), {}).setdefault(subject, []).append(float(ns))
    return [
        cell(key, {subject: np.array(values) for subject, values in subjects.items()})
        for key, subjects in samples.items()
    ]


def geometric_mean(cells: Iterable[Cell]) -> float:
    """Return the geometric mean of the ratios, nan for no cells."""
    logarithms = [math.log(each.ratio.value) for each in cells]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan
