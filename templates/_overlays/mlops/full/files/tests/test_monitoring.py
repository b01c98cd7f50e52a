"""Drift and A/B verdicts: seldom wrong without a difference, quick to find one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from {{ cookiecutter.package_name }}.bundle.reference import distribution
from {{ cookiecutter.package_name }}.experiments.drift_plot import draw_drift
from {{ cookiecutter.package_name }}.monitoring import ab_test, stats
from {{ cookiecutter.package_name }}.monitoring.drift import (
    FeatureDrift,
    compare_distributions,
    drift_table,
)

Random = np.random.Generator


def random(seed: int = 7) -> Random:
    return np.random.default_rng(seed)


def autoregressive(generator: Random, rows: int, memory: float) -> np.ndarray:
    """Standard normal values, each correlated by `memory` with the one before."""
    noise = generator.normal(size=rows) * math.sqrt(1 - memory**2)
    noise[0] = generator.normal()
    values = [noise[0]]
    for step in noise[1:]:
        values.append(memory * values[-1] + step)
    return np.array(values)


def window(generator: Random, rows: int) -> dict[str, np.ndarray]:
    """Features of every sort."""
    return {
        "normal": generator.normal(size=rows),
        "skewed": generator.lognormal(size=rows),
        "count": generator.poisson(1.5, rows),
        "flag": generator.random(rows) < 0.05,
        "word": generator.choice(
            list("abcdefgh"), rows, p=[0.5, 0.2, 0.1, 0.1, 0.04, 0.03, 0.02, 0.01]
        ),
    }


def references(features: dict[str, np.ndarray]) -> dict[str, dict]:
    """What a bundle would hold of them."""
    return json.loads(json.dumps({name: distribution(x) for name, x in features.items()}))


def compare(expected: np.ndarray, online: np.ndarray) -> FeatureDrift:
    return compare_distributions(references({"x": expected}), {"x": online})[0]


def test_ess_of_independent_rows_is_their_number() -> None:
    for name, values in window(random(), 2000).items():
        assert 1600 <= distribution(values)["effective"] <= 2000, name


def test_ess_of_a_slow_series_is_smaller() -> None:
    values = autoregressive(random(), 5000, 0.9)
    # Being above the median correlates by 2/π arcsin(0.9^k) at lag k, other deciles by less.
    time = 1 + 2 * sum(2 / math.pi * math.asin(0.9**k) for k in range(1, 200))
    assert 0.7 < distribution(values)["effective"] * time / 5000 < 1.6
    words = np.repeat(random().choice(["a", "b", "c"], 500), 10)
    assert 350 < distribution(words)["effective"] < 700


def test_at_most_one_window_in_a_hundred_is_a_false_alarm() -> None:
    generator = random()
    false = 0
    for _ in range(100):
        expected = window(generator, 600)
        false += any(
            row.drifted
            for row in compare_distributions(references(expected), window(generator, 150))
        )
    assert false <= 2


def test_slow_series_raise_no_more_false_alarms() -> None:
    generator = random()
    false = 0
    for _ in range(100):
        expected = autoregressive(generator, 1500, 0.9)
        false += compare(expected, autoregressive(generator, 200, 0.9)).drifted
    assert false <= 2


def test_p_values_are_below_5_percent_in_about_5_percent_of_windows_or_less() -> None:
    generator = random()
    small = dict.fromkeys(window(generator, 10), 0)
    for _ in range(150):
        for row in compare_distributions(
            references(window(generator, 500)), window(generator, 200)
        ):
            small[row.feature] += row.p_value < 0.05
    assert max(small.values()) <= 14, small  # 7.5 are expected, 2.7 their standard deviation
    assert min(small["normal"], small["word"]) >= 2, small


def test_shift_of_half_a_standard_deviation_is_found_in_300_rows() -> None:
    generator = random()
    expected = references({"x": generator.normal(size=2000)})
    detected = [
        compare_distributions(expected, {"x": generator.normal(0.5, 1, 300)})[0].drifted
        for _ in range(60)
    ]
    assert np.mean(detected) >= 0.9


def test_shift_within_a_window_is_not_mistaken_for_correlation() -> None:
    for start in (100, 200, 260):
        live = random(1).normal(size=400)
        live[start:] += 1.5
        assert compare(random().normal(size=2000), live).drifted


def test_significant_but_small_difference_is_no_drift() -> None:
    row = compare(random(0).normal(size=30_000), random(1).normal(0.08, 1, 30_000))
    assert row.adjusted_p < 0.001
    assert not row.drifted
    assert "too small" in row.why


def test_large_but_insignificant_difference_is_no_drift() -> None:
    words = np.array(["a"] * 160 + ["b"] * 40)
    row = compare_distributions({"x": {**distribution(words), "effective": 20}}, {"x": words[40:]})[
        0
    ]
    assert row.ess < 20
    assert not row.drifted


def test_drift_is_found_where_one_value_fills_most_deciles() -> None:
    flag = compare(random(0).random(1000) < 0.05, random(1).random(400) < 0.4)
    assert flag.drifted
    inflated = [
        np.where(random(s).random(900) < p, 0, random(s).random(900))
        for s, p in ((3, 0.92), (4, 0.5))
    ]
    assert compare(*inflated).drifted


def test_changed_constant_is_drift_and_an_unchanged_one_is_not() -> None:
    for value in (5.0, 0.0, -3e-9):
        constant = np.full(200, value)
        assert not compare(constant, constant).drifted
        assert compare(constant, constant * 1.5 + 1e-3).drifted
    assert compare(np.full(200, "a"), np.full(200, "b")).drifted


def test_equal_values_stay_equal_when_the_reference_is_rounded() -> None:
    values = random().choice([1 / 3, 2 / 3, 1e7 / 3], 3000)
    row = compare(values, values[:500])
    assert row.value < 0.05
    assert not row.drifted


def test_new_frequent_category_is_drift() -> None:
    expected = np.array(["a", "b"] * 500)
    row = compare(expected, np.array(["a", "b", "new"] * 60))
    assert row.drifted
    rare = np.array(["a", "b"] * 150 + ["new"])
    assert not compare(expected, rare).drifted


def test_features_that_cannot_be_compared_are_skipped_with_a_reason() -> None:
    numbers, words = random().normal(size=300), np.array(["a", "b"] * 150)
    reference = references(
        {"gone": numbers, "text": numbers, "few": numbers, "one": words, "nan": numbers}
    )
    reference["empty"] = distribution(np.array([]))
    reference["void"] = distribution(np.array([], str))
    live = {"text": words, "few": numbers[:99], "one": words[:1], "nan": np.full(9, np.nan)}
    live |= {"new": numbers, "empty": numbers, "void": words}
    rows = {row.feature: row for row in compare_distributions(reference, live)}
    assert not any(row.drifted for row in rows.values())
    for name in ("gone", "text", "nan", "new", "empty", "void"):
        assert rows[name].why.startswith("skipped: "), name
    for name in ("few", "one"):
        assert "at least 100 are needed" in rows[name].why
    assert compare_distributions({}, {}) == []
    assert len(drift_table(list(rows.values()))) == len(rows) + 2


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    numbers = random().normal(size=400)
    live = np.concatenate([numbers, [np.nan, np.inf, -np.inf]])
    row = compare(live, live)
    assert row.rows == 400
    assert "(3 not finite)" in row.why


def test_sample_of_the_reference_is_bounded_and_sorted() -> None:
    for rows in (1, 7, 1000, 54_321):
        kept_sample = distribution(random().normal(size=rows))["sample"]
        assert len(kept_sample) == min(rows, 1000)
        assert kept_sample == sorted(kept_sample)


def test_holm_multiplies_the_smallest_by_all_and_never_decreases() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_distribution_functions_match_known_values() -> None:
    for x in (1e-8, 0.3, 1.0, 2.5, 40.0, 700.0):
        assert stats.upper_gamma(1, x) == pytest.approx(math.exp(-x), rel=1e-10)
        assert stats.upper_gamma(0.5, x) == pytest.approx(math.erfc(math.sqrt(x)), rel=1e-9)
    assert stats.upper_gamma(3, 0) == 1
    rows = 1e9  # where the correction for few rows is nothing
    for critical, p_value in ((1.3581, 0.05), (1.6276, 0.01)):
        distance = critical / math.sqrt(rows / 2)
        assert stats.ks_p_value(distance, rows, rows) == pytest.approx(p_value, rel=1e-2)


def test_p_values_agree_with_scipy() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 9, 150):
        for x in (0.01, 1.0, 12.0, 150.0, 400.0):
            expected = scipy_stats.chi2.sf(x, freedom)
            assert stats.upper_gamma(freedom / 2, x / 2) == pytest.approx(expected, rel=1e-9)
    counts = random().integers(10, 60, (2, 6)).astype(float)
    expected = scipy_stats.chi2_contingency(counts, correction=False)
    assert stats.chi_squared_test(counts) == pytest.approx(expected[:2])
    for shift in (0.0, 0.1, 0.3):
        first, second = random(1).normal(size=200), random(2).normal(shift, 1, 150)
        expected = scipy_stats.ks_2samp(first, second, method="exact")
        distance = stats.ks_statistic(first, second)
        assert distance == pytest.approx(expected.statistic)
        p_value = stats.ks_p_value(distance, 200, 150)
        assert p_value == pytest.approx(expected.pvalue, rel=0.15, abs=1e-4)


def test_drift_plot_is_drawn_for_any_number_of_features(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    features = window(random(), 200) | {f"more {n}": np.full(200, 2.0) for n in range(9)}
    reference = references(features)
    for some in (features, {"word": features["word"]}, {}):
        draw_drift(reference, some, compare_distributions(reference, some), tmp_path / "drift.png")
        assert (tmp_path / "drift.png").read_bytes().startswith(b"\x89PNG")


def looks(scores: np.ndarray, challenger: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of many tests (tests, units) ever promoted or ever stopped the challenger."""
    rules = ab_test.TestRules()
    groups = []
    for chosen in (~challenger, challenger):
        count = chosen.cumsum(axis=1)
        total, squares = (scores * chosen).cumsum(axis=1), (scores**2 * chosen).cumsum(axis=1)
        some = np.maximum(count, 1)
        variance = np.maximum(squares - total**2 / some, 0) / np.maximum(count - 1, 1)
        groups.append(ab_test.UnitStats(count, total / some, variance))
    _, low, high = ab_test.confidence_interval(groups[0], groups[1], rules)
    enough = np.minimum(groups[0].count, groups[1].count) >= rules.least_units
    return ((low > 0) & enough).any(axis=1), ((high < 0) & enough).any(axis=1)


def errors(generator: Random, size: tuple[int, int]) -> np.ndarray:
    """Absolute errors with a heavy tail, signed so that more is better."""
    return -generator.lognormal(size=size)


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("rate", [0.9, 0.99, None])
def test_peeking_after_every_unit_promotes_at_most_5_percent_of_useless_challengers(
    share: float, rate: float | None
) -> None:
    generator, size = random(), (400, 1500)
    challenger = generator.random(size) < share
    right = errors(generator, size) if rate is None else generator.random(size) < rate
    promoted, stopped = looks(right.astype(float), challenger)
    assert promoted.mean() <= 0.05
    assert stopped.mean() <= 0.05


@pytest.mark.parametrize(("share", "least"), [(0.1, 0.6), (0.5, 0.95)])
def test_challenger_right_in_90_instead_of_80_percent_is_promoted(
    share: float, least: float
) -> None:
    generator, size = random(), (200, 1500)
    challenger = generator.random(size) < share
    right = generator.random(size) < np.where(challenger, 0.9, 0.8)
    promoted, stopped = looks(right.astype(float), challenger)
    assert promoted.mean() >= least
    assert not stopped.any()


def test_many_requests_of_few_callers_promote_no_more_useless_challengers() -> None:
    generator = random()
    promoted = 0
    for _ in range(80):
        callers = np.minimum(generator.zipf(1.4, 3000), 400)  # a few of them send most
        skill = generator.normal(size=401)  # what a caller asks is easy or hard
        challenger = (generator.random(401) < 0.4)[callers]
        scores = skill[callers] + 0.3 * generator.normal(size=3000)
        for rows in range(200, 3001, 200):
            verdict = ab_test.compare_split(callers[:rows], challenger[:rows], scores[:rows], 0.4)
            if verdict.decision == "promote":
                promoted += 1
                break
    assert promoted <= 4


def test_shadow_run_needs_fewer_units_for_the_same_error_rate() -> None:
    generator = random()
    useless = better = 0
    for _ in range(60):
        units, noise = np.arange(300), generator.standard_t(4, 300)
        every = range(50, 301, 10)
        verdicts = [ab_test.compare_paired(units[:n], noise[:n]).decision for n in every]
        useless += "promote" in verdicts
        better += ab_test.compare_paired(units, noise + 0.5).decision == "promote"
    assert useless <= 3
    assert better >= 57


def test_caller_counts_once_with_the_variant_it_met_first() -> None:
    units = np.array(["a", "a", "a", "b", "b", "c"])
    challenger = np.array([True, True, False, False, False, False])
    verdict = ab_test.compare_split(units, challenger, np.array([1, 3, 99, 5, np.nan, 7]), 0.5)
    assert (verdict.champion_units, verdict.challenger_units) == (2, 1)
    assert verdict.difference == pytest.approx(2 - 6)
    assert verdict.decision == "keep going"


def test_lower_scores_may_be_better() -> None:
    generator = random()
    challenger = np.arange(600) % 2 == 0
    loss = generator.normal(size=600) - challenger
    rules = ab_test.TestRules(higher_is_better=False)
    verdict = ab_test.compare_split(np.arange(600), challenger, loss, 0.5, rules)
    assert verdict.decision == "promote"
    assert 0 < verdict.low < verdict.difference < verdict.high
    worse = ab_test.compare_split(np.arange(600), challenger, loss, 0.5)
    assert worse.decision == "stop"
    assert "worse" in worse.reason


def test_ab_test_stops_without_useful_gain_or_at_its_limit() -> None:
    challenger = np.arange(400) % 2 == 0
    scores = random().normal(size=400)
    test = np.arange(400), challenger, scores, 0.5
    assert ab_test.compare_split(*test).decision == "keep going"
    assert ab_test.compare_split(*test, ab_test.TestRules(least_effect=2)).decision == "stop"
    assert ab_test.compare_split(*test, ab_test.TestRules(most_units=400)).decision == "stop"
    assert ab_test.compare_split(*test, ab_test.TestRules(most_units=401)).decision == "keep going"


def test_nothing_is_decided_without_enough_units() -> None:
    for units in (0, 1, 2, 3, 98):
        challenger = np.arange(units) % 2 == 0
        verdict = ab_test.compare_split(np.arange(units), challenger, 100.0 * challenger, 0.5)
        assert verdict.decision == "keep going"
        assert "at least 50" in verdict.reason
        assert (
            ab_test.compare_paired(np.arange(units)[:49], np.ones(min(units, 49))).decision
            == "keep going"
        )
    constant = ab_test.compare_split(np.arange(200), np.arange(200) % 2 == 0, np.ones(200), 0.5)
    assert constant.decision == "keep going"


def test_sample_ratio_mismatch_gives_no_verdict() -> None:
    challenger = random().random(600) < 0.2
    scores = random(1).normal(size=600) + 3 * challenger
    assert ab_test.compare_split(np.arange(600), challenger, scores, 0.2).decision == "promote"
    mismatch = ab_test.compare_split(np.arange(600), challenger, scores, 0.5)
    assert mismatch.decision == "keep going"
    assert "sample ratio mismatch" in mismatch.reason
    with pytest.raises(ValueError, match="share"):
        ab_test.compare_split(np.arange(600), challenger, scores, 1.0)


def test_callers_who_were_all_served_well_prove_nothing_yet() -> None:
    rules = ab_test.TestRules(least_effect=0.005, score_range=1.0)
    units, challenger = np.arange(200), np.arange(200) % 2 == 0
    split = ab_test.compare_split(units, challenger, np.ones(200), 0.5, rules)
    shadow = ab_test.compare_paired(units, np.zeros(200), rules)
    for verdict in (split, shadow):
        assert verdict.decision == "keep going"
        assert verdict.high - verdict.low > 0.02
    unbounded = ab_test.compare_split(units, challenger, np.zeros(200), 0.5)
    assert not math.isfinite(unbounded.high)


def test_good_challenger_near_a_perfect_score_is_not_stopped() -> None:
    generator, rules = random(), ab_test.TestRules(least_effect=0.005, score_range=1.0)
    stopped = 0
    for _ in range(60):
        challenger = generator.random(1500) < 0.5
        right = generator.random(1500) < np.where(challenger, 0.999, 0.99)
        shadow = (generator.random(1500) < 0.999).astype(float) - (generator.random(1500) < 0.99)
        for n in range(100, 1501, 100):
            units = np.arange(n)
            split = ab_test.compare_split(units, challenger[:n], right[:n], 0.5, rules)
            paired = ab_test.compare_paired(units, shadow[:n], rules)
            stopped += "stop" in (split.decision, paired.decision)
    assert stopped <= 3


def test_forecast_power_is_about_that_of_simulated_tests() -> None:
    generator, units = random(), 1200
    challenger = np.arange(units) % 2 == 0
    promoted, forecasts = [], []
    verdict = ab_test.compare_split(np.arange(0), challenger[:0], np.zeros(0), 0.5)
    for _ in range(200):
        right = generator.random(units) < np.where(challenger, 0.88, 0.8)
        verdict = ab_test.compare_split(np.arange(units), challenger, right, 0.5)
        promoted.append(verdict.low > 0)
        early = ab_test.compare_split(np.arange(300), challenger[:300], right[:300], 0.5)
        forecasts.append(ab_test.power(early, 0.08, units, ab_test.TestRules()))
    assert abs(np.mean(promoted) - np.mean(forecasts)) < 0.12
    rules = ab_test.TestRules()
    needed = ab_test.units_needed(verdict, 0.08, rules)
    assert ab_test.power(verdict, 0.08, needed, rules) >= 0.8
    assert ab_test.detectable_effect(verdict, needed, rules) <= 0.08
