"""Distributions in a bundle's `reference.json`, which drift compares online values with."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Discriminator, Field, NonNegativeInt, Tag, model_validator

from ..arrays import evenly_spaced
from ..files import Document

MAX_SAMPLE = 1000  # order statistics kept for the Kolmogorov-Smirnov statistic
SIGNIFICANT_DIGITS = 6  # of reference and online values alike, so that equal values stay equal
MAX_CATEGORIES = 20  # the most frequent ones, whose autocorrelation is summed


class Numbers(Document):
    """The distribution of a feature that is a number."""

    edges: list[float]
    counts: list[NonNegativeInt]
    sample: list[float] = Field(default=[])
    effective: float = 0.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.edges) != len(self.counts) + 1 or (np.diff(self.edges) <= 0).any():
            raise ValueError("edges must increase, and be one more than counts")
        return self


class Categories(Document):
    """The distribution of a feature that is text."""

    counts: dict[str, NonNegativeInt]
    effective: float = 0.0


def _kind(value: Any) -> str:
    return "numbers" if isinstance(value, dict) and "edges" in value else "categories"


Distribution = Annotated[
    Annotated[Numbers, Tag("numbers")] | Annotated[Categories, Tag("categories")],
    Discriminator(_kind),
]


class Reference(Document):
    """The shape of `reference.json`; it is checked and then used as JSON."""

    features: dict[str, Distribution]
    predictions: dict[str, Distribution]


def distribution(values: Any) -> dict[str, Any]:
    """Describe one feature or prediction statistic from its values (n,) in the order of the rows.

    Text: `counts` by value. Numbers (finite ones): `counts` between `edges` at the deciles, where a
    value that fills a decile or more has a bin of its own, and a `sample` of at most 1000 order
    statistics. Both: `effective`, the effective sample size.
    """
    array = np.asarray(values).ravel()
    if array.dtype.kind in "USO":
        array = array.astype(str)
        counts = Counter(sorted(array.tolist()))
        return {"counts": dict(counts), "effective": round(effective_sample_size(array), 1)}
    numbers = round_values(array[np.isfinite(array.astype(np.float64))])
    ordered = np.sort(numbers)
    edges = _edges(ordered)
    places = evenly_spaced(len(ordered), MAX_SAMPLE)
    return {
        "edges": edges.tolist(),
        "counts": np.histogram(numbers, edges)[0].tolist(),
        "sample": (ordered[places] if len(ordered) > MAX_SAMPLE else ordered).tolist(),
        "effective": round(effective_sample_size(numbers), 1),
    }


def round_values(values: np.ndarray) -> np.ndarray:
    """Round values (n,) to the significant digits of a reference."""
    rounded = [float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values.tolist()]
    return np.array(rounded, np.float64)


def _edges(ordered: np.ndarray) -> np.ndarray:
    """Return increasing edges: the deciles and, where these repeat a value, one right above it."""
    if not len(ordered):
        return np.array([0.0, 1.0])
    deciles = round_values(np.quantile(ordered, np.linspace(0, 1, 11)))
    repeated = deciles[1:][np.diff(deciles) == 0]
    sizes = np.where(repeated == 0, np.abs(ordered).max() or 1.0, np.abs(repeated))
    return np.unique(np.append(deciles, repeated + sizes * 10.0**-SIGNIFICANT_DIGITS))


def effective_sample_size(values: np.ndarray, blocks: int = 1) -> float:
    """Return the effective sample size (ESS) of values (n,) in the order of their rows: n over the
    integrated autocorrelation time, summed up to the end of Geyer's initial monotone sequence.

    The autocorrelation is that of the indicators which the drift tests compare: of each category,
    or of lying below each decile. Each of `blocks` consecutive blocks is centred on its own mean,
    so a shift within the window does not count as correlation. Source: Geyer, Practical Markov
    chain Monte Carlo, Statistical Science 7 (1992), section 3.3.
    """
    rows = len(values)
    if rows < 4 * blocks:
        return float(rows)
    covariances = np.zeros(rows)
    for column in _indicators(values):
        split = np.array_split(column, blocks)
        centred = np.concatenate([block - block.mean() for block in split])
        power = np.abs(np.fft.rfft(centred, 2 * rows)) ** 2
        covariances += np.fft.irfft(power, 2 * rows)[:rows]
    if covariances[0] <= 1e-9 * rows:  # a constant has no autocorrelation
        return float(rows)
    correlations = covariances / covariances[0]
    # Centring each block has lowered all covariances by the variance of its mean: add that again.
    bias = _correlation_time(correlations) * blocks / rows
    correlations += bias * np.maximum(0, 1 - np.arange(rows) * blocks / rows)
    return rows / _correlation_time(correlations / correlations[0])


def _correlation_time(correlations: np.ndarray) -> float:
    """Return the integrated autocorrelation time in rows, at least 1, from the autocorrelations
    (n,) at lags 0, 1, …"""
    paired = correlations[: len(correlations) // 2 * 2].reshape(-1, 2).sum(axis=1)
    end = np.argmax(paired <= 0) if (paired <= 0).any() else len(paired)
    return max(1.0, float(2 * np.minimum.accumulate(paired[:end]).sum() - 1)) if end else 1.0


def _indicators(values: np.ndarray) -> list[np.ndarray]:
    if values.dtype.kind != "U":
        cuts = np.unique(np.quantile(values, np.linspace(0, 0.9, 10)))
        return [(values <= cut).astype(np.float64) for cut in cuts]
    names, counts = np.unique(values, return_counts=True)
    frequent = names[np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]]
    return [(values == name).astype(np.float64) for name in frequent]
