# SPDX-License-Identifier: BSD-3-Clause
"""Medians, their ratios, and 95 % intervals of both, from interleaved samples."""

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
    """A ratio of two medians and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def deviation(self) -> float:
        """How far from 1 the interval reaches, as a factor."""
        return max(self.high, 1 / self.low)


def ratio(ours: Samples, theirs: Samples) -> Ratio:
    """Median of `ours` over median of `theirs`. Interval: bootstrap over rounds, which keeps together what
    was measured side by side.
    """
    chosen = np.random.default_rng(0).integers(len(ours), size=(RESAMPLES, len(ours)))
    ratios = np.median(ours[chosen], axis=1) / np.median(theirs[chosen], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Ratio(float(np.median(ours) / np.median(theirs)), float(low), float(high))


@dataclass(frozen=True)
class Cell:
    """What one cell of a benchmark came to: nanoseconds an element, and ratios to DPDK."""

    key: tuple[str, ...]
    ours: float
    dpdk: float
    ratio: Ratio
    noise: Ratio  # DPDK against itself

    @property
    def bound(self) -> float:
        """What the ratio's interval may not lie above: 1.05, or this cell's noise where that is more."""
        return max(ALLOWED, self.noise.deviation)

    @property
    def slower(self) -> bool:
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
    """Cells from the program's lines: the cell's fields, subject, round, nanoseconds; separated by tabs."""
    samples: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for line in lines:
        *key, subject, _round, ns = line.rstrip("\n").split("\t")
        samples.setdefault(tuple(key), {}).setdefault(subject, []).append(float(ns))
    return [
        cell(key, {subject: np.array(values) for subject, values in subjects.items()})
        for key, subjects in samples.items()
    ]


def geometric_mean(chosen: Iterable[Cell]) -> float:
    """Of the ratios; nan where there is no cell."""
    logarithms = [math.log(each.ratio.value) for each in chosen]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan
