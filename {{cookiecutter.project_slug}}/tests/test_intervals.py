"""Intervals cover the true mean as often as they say, also with few seeds and rows in groups."""

import numpy as np
import pytest

from {{ cookiecutter.package_name }}.task import objective
from {{ cookiecutter.package_name }}.training import intervals


@pytest.fixture(autouse=True)
def single_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "BLOCK_LENGTH", 1)


def draw_scores(
    draw: np.random.Generator, seeds: int, of_seeds: float, clusters: int, size: int
) -> np.ndarray:
    """Draw scores (seed, example) of mean 0: of seeds, of clusters of rows, of rows, of both."""
    rows = np.repeat(draw.normal(size=(1, clusters)), size, axis=1)
    count = clusters * size
    noise = draw.normal(size=(1, count)) + draw.normal(size=(seeds, count))
    return of_seeds * draw.normal(size=(seeds, 1)) + rows + 0.5 * noise


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("of_seeds", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("known", ["rows", "blocks", "clusters"])
def test_intervals_cover_the_true_mean(
    seeds: int, of_seeds: float, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seeds == 1:
        of_seeds = 0.0  # nothing can be known of the spread over seeds
    draw = np.random.default_rng(seeds)
    clusters, size = (200, 1) if known == "rows" else (40, 5)
    order = draw.permutation(200) if known == "clusters" else np.arange(200)
    monkeypatch.setattr(objective, "BLOCK_LENGTH", size if known == "blocks" else 1)
    numbers = (np.arange(200) // size)[order] if known == "clusters" else None
    covered = 0
    for _ in range(400):
        scores = draw_scores(draw, seeds, of_seeds, clusters, size)[:, order]
        low, high = intervals.mean_interval(scores, numbers)
        covered += low <= 0 <= high
    assert 0.92 <= covered / 400 <= 0.995


def test_intervals_that_took_clustered_rows_for_single_ones_would_be_too_narrow() -> None:
    scores = draw_scores(np.random.default_rng(0), 3, 0.0, 40, 25)
    numbers = np.arange(1000) // 25
    grouped, single = intervals.mean_interval(scores, numbers), intervals.mean_interval(scores)
    assert np.ptp(grouped) > 2.5 * np.ptp(single)


@pytest.mark.parametrize("alike", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("largest", [300, 60, 6])
def test_intervals_cover_the_true_mean_with_few_clusters_of_unequal_size(
    alike: float, largest: int
) -> None:
    sizes = np.array([largest, 150, 130, 70, 40, 40, *range(1, 30)])
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    draw = np.random.default_rng(largest)
    covered = 0
    for _ in range(400):
        common = draw.normal(size=len(sizes))[numbers]
        rows = draw.normal(size=len(numbers))
        scores = np.sqrt(alike) * common + np.sqrt(1 - alike) * rows
        low, high = intervals.mean_interval(scores[None], numbers)
        covered += low <= 0 <= high
    assert 0.93 <= covered / 400 <= 0.995


def test_degrees_of_freedom_are_those_of_the_squares_of_drawn_scores() -> None:
    sizes = np.array([50, 20, 20, 5, 5])
    draw = np.random.default_rng(0).normal(size=(20_000, len(sizes))) * np.sqrt(sizes / 100)
    shares = sizes / 100
    weights = (1 - 1 / 5) / (1 - shares) ** 2
    squares = np.square(draw - shares * draw.sum(axis=1, keepdims=True)) @ weights
    simulated = 2 * squares.mean() ** 2 / squares.var()
    assert intervals._freedom(shares, weights) == pytest.approx(simulated, rel=0.05)
    equal = np.full(12, 1 / 12)
    assert intervals._freedom(equal, np.full(12, 12 / 11)) == pytest.approx(11)


@pytest.mark.parametrize("of_seeds", [0.0, 0.5])
def test_all_leads_hold_together_as_often_as_one_interval(of_seeds: float) -> None:
    draw = np.random.default_rng(1)
    alone = together = 0
    for _ in range(200):
        network = draw_scores(draw, 3, of_seeds, 200, 1)
        leads = [network - draw.normal(size=200) for _ in range(5)]
        level = intervals.level_of_each(leads)
        alone += all(low <= 0 <= high for low, high in map(intervals.mean_interval, leads))
        ends = [intervals.mean_interval(lead, level=level) for lead in leads]
        together += all(low <= 0 <= high for low, high in ends)
    assert alone < together
    assert together / 200 >= 0.92


def test_equal_leads_need_no_correction_and_independent_ones_that_of_sidak() -> None:
    draw = np.random.default_rng(2)
    lead = draw.normal(size=(3, 5000))
    assert intervals.level_of_each([lead]) == pytest.approx(0.95, abs=0.003)
    assert intervals.level_of_each([lead, 2 * lead + 1]) == pytest.approx(0.95, abs=0.003)
    others = [draw.normal(size=(3, 5000)) for _ in range(4)]
    assert intervals.level_of_each(others) >= 0.95 ** (1 / 4) - 0.006


def test_interval_stays_in_the_range_of_the_scores_and_equal_scores_give_their_value() -> None:
    low, high = intervals.mean_interval(np.array([[1.0] * 29 + [0.0]] * 2))
    assert 0 < low < high == 1
    assert intervals.mean_interval(np.ones((3, 30))) == (1, 1)
    assert intervals.mean_interval(np.array([[0.0, 1.0, 1.0]]), np.zeros(3)) == (0, 1)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.30265), (10, 2.22814), (1e9, 1.95996)]
)
def test_quantiles_are_those_of_the_tables_of_student_s_t(freedom: float, quantile: float) -> None:
    assert intervals.t_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-4)
