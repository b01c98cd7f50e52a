"""Intervals cover the truth about as often as they say, whatever varies."""

import numpy as np
import pytest

from {{ cookiecutter.package_name }}.training.intervals import mean_interval, t_quantile


def coverage(seed_sd: float, shared_sd: float, own_sd: float, seeds: int) -> float:
    """Of 400 simulated experiments whose true mean is 0."""
    draw, covered = np.random.default_rng(0), 0
    for _ in range(400):
        of_seed, of_example = draw.normal(size=(seeds, 1)), draw.normal(size=(1, 150))
        noise = draw.normal(size=(seeds, 150))
        low, high = mean_interval(seed_sd * of_seed + shared_sd * of_example + own_sd * noise)
        covered += low <= 0 <= high
    return covered / 400


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(
    ("seed_sd", "shared_sd", "own_sd"), [(0.5, 0.2, 0.2), (0.1, 1, 0), (0, 1, 1), (0.3, 1, 0.5)]
)
def test_intervals_cover_the_mean_with_few_seeds_too(
    seeds: int, seed_sd: float, shared_sd: float, own_sd: float
) -> None:
    # With two seeds the degrees of freedom are themselves a guess.
    assert coverage(seed_sd, shared_sd, own_sd, seeds) >= (0.85 if seeds == 2 else 0.9)


def test_interval_of_one_seed_covers_a_share_of_correct_answers() -> None:
    draw, covered = np.random.default_rng(1), 0
    for _ in range(400):
        low, high = mean_interval((draw.random((1, 200)) < 0.8).astype(float))
        covered += low <= 0.8 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_interval_is_wider_when_neighbours_resemble_each_other() -> None:
    scores = np.repeat(np.random.default_rng(2).normal(size=50), 10)[None]
    ratio = np.ptp(mean_interval(scores, block=10)) / np.ptp(mean_interval(scores))
    assert 2 < ratio < 4  # the square root of ten


def test_interval_is_wider_when_members_of_a_group_resemble_each_other() -> None:
    groups = np.tile(np.arange(50), 10)  # not neighbours
    scores = np.random.default_rng(2).normal(size=50)[groups][None]
    ratio = np.ptp(mean_interval(scores, clusters=groups)) / np.ptp(mean_interval(scores))
    assert 2 < ratio < 4


def test_interval_stays_within_the_range_of_the_scores() -> None:
    scores = np.ones((1, 100))
    scores[0, 0] = 0
    assert mean_interval(scores)[1] == 1
    assert mean_interval(np.ones((3, 100))) == (1, 1)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.30265), (10, 2.22814), (1e9, 1.95996)]
)
def test_quantiles_are_those_of_the_tables_of_student_s_t(freedom: float, quantile: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-4)
