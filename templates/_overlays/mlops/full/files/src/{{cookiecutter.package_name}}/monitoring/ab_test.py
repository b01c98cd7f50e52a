"""The verdict of an A/B test or a shadow run, valid however often and whenever one looks.

Units of randomisation are the callers, whom the router keeps with one variant. Each counts once, by
its mean score, as the requests of one caller resemble each other. So `difference` is between mean
callers, not between mean requests.

The interval is an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
Time-uniform central limit theory and asymptotic confidence sequences, Annals of Statistics 52
(2024), theorem 2.2) about the difference of means. It holds at all looks together; an ordinary
95 % interval, looked at daily, misleads far more often. Scores of which all are equal so far have a
variance all the same: see `_least_variance`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np

BORROWED_UNITS = 200  # of pooled variance, mixed with each variant's own
UNSEEN_EXTREMES = 2  # units at the far end of the scores' range that may not have come yet
POWER = 0.8  # with which a forecast says how much is needed
SRM_ALPHA = 0.001  # chance of ever reporting a sample ratio mismatch (SRM) that is none
SRM_PRIOR_UNITS = 100  # units that the prior of the traffic split is worth


@dataclass(frozen=True)
class TestRules:
    """Rules by which a test ends.

    `alpha` bounds, as units become many, the probability that the true difference is *ever*
    outside the interval, at any look from `least_units` on. So it also bounds the probability of
    promoting a challenger that is no better (by about half, as the interval has two sides), and of
    stopping one by its upper bound that is better by `least_effect` or more.
    """

    alpha: float = 0.05
    higher_is_better: bool = True  # of the scores
    least_units: int = 50  # labelled, of each variant, before any verdict
    most_units: int | None = None  # labelled, of both together, after which a test is stopped
    least_effect: float = 0.0  # in units of the score; less is not worth a promotion
    tight_at: int = 1000  # units of both variants at which the interval is narrowest
    score_range: float | None = None  # largest difference of two scores; None: unbounded


DEFAULT_RULES = TestRules()


@dataclass(frozen=True)
class Verdict:
    """The decision and why; `difference` is challenger - champion, signed so that > 0 is better."""

    decision: Literal["keep going", "promote", "stop"]
    reason: str
    difference: float
    low: float
    high: float
    champion_units: int
    challenger_units: int
    alpha: float


class UnitStats(NamedTuple):
    """Number, mean and variance of one variant's units; arrays hold many looks at once."""

    count: Any
    mean: Any
    variance: Any  # with divisor count - 1


def compare_split(
    units: np.ndarray,
    variant: np.ndarray,
    scores: np.ndarray,
    share: float,
    rules: TestRules = DEFAULT_RULES,
) -> Verdict:
    """Judge a split by the caller, variant (true: challenger) and score of each request, all (n,).

    Rows stand in the order of time, all from a test in which the challenger had the same `share` of
    the callers. A caller belongs to the variant it met first; scores of the other do not count, nor
    do those that are not finite.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, not {share}")
    groups = _unit_stats(units, variant, scores, rules)
    evidence = srm_log_bayes_factor(groups[1].count, groups[0].count, share)
    mismatch = evidence > math.log(1 / SRM_ALPHA)
    return _verdict(*groups, confidence_interval(*groups, rules), mismatch, rules)


def compare_paired(
    units: np.ndarray, differences: np.ndarray, rules: TestRules = DEFAULT_RULES
) -> Verdict:
    """Judge a shadow run: caller (n,) and score of challenger - champion on one request (n,).

    Every request is answered by both, so what makes requests easy or hard cancels out.
    """
    _, group = _unit_stats(units, np.ones(len(differences), bool), differences, rules)
    scale = rules.score_range or math.sqrt(group.variance + group.mean**2)
    variance = max(group.variance, _least_variance(group.count, scale))
    error = math.sqrt(variance / group.count) if group.count > 1 else math.inf
    margin = interval_width(group.count, rules) * error
    bounds = group.mean, group.mean - margin, group.mean + margin
    return _verdict(group, group, bounds, False, rules)


def confidence_interval(
    champion: UnitStats, challenger: UnitStats, rules: TestRules
) -> tuple[Any, Any, Any]:
    """Return the difference of means with its bounds, elementwise over the looks of arrays.

    The difference of means is the augmented inverse-probability-weighted estimate whose regression
    is the variants' own means. Its plain variance misleads with few challengers: a run of luck
    raises the mean *and* lowers the variance; with 10 % of the traffic and 97 % of scores 1, a
    quarter of useless challengers were promoted. So each variance is at least what `BORROWED_UNITS`
    more units of the pooled variance would make it, which matters ever less as units become many,
    and at least `_least_variance`.
    """
    units = champion.count + challenger.count
    squares = sum(group.variance * (group.count - 1) for group in (champion, challenger))
    pooled = np.maximum(squares, 0) / np.maximum(units - 2, 1)
    difference = challenger.mean - champion.mean
    # Without a known range, the standard deviation around the common mean stands for it.
    between = champion.count * challenger.count / np.maximum(units, 1) * difference**2
    total = np.sqrt((np.maximum(squares, 0) + between) / np.maximum(units - 1, 1))
    spread: Any = 0.0  # squared standard error of the difference
    for group in (champion, challenger):
        count = np.maximum(group.count, 1)
        mixed = (group.variance * count + pooled * BORROWED_UNITS) / (count + BORROWED_UNITS)
        least = _least_variance(count, rules.score_range or total)
        spread = spread + np.maximum(np.maximum(group.variance, mixed), least) / count
    margin = interval_width(units, rules) * np.sqrt(spread)
    margin = np.where(np.minimum(champion.count, challenger.count) < 2, np.inf, margin)
    return difference, difference - margin, difference + margin


def _least_variance(count: Any, scale: Any) -> Any:
    """Return the variance that units have at least, whatever they showed so far: infinite if even
    their scale is zero.

    A hundred callers of whom all were served well do not prove that none ever fails. Bounds for
    bounded scores therefore add a term of range / n to the one with the variance, such as the
    empirical Bernstein bound (Maurer and Pontil, COLT 2009, theorem 4) and its confidence sequence
    (Waudby-Smith and Ramdas, Journal of the Royal Statistical Society B 86, 2024). Here it is a
    variance of `UNSEEN_EXTREMES` such units in `count`: with no failure among n, the failure rate
    may be about 5 / n. The constant was chosen by simulation (docs/monitoring.md of the template).
    """
    least = UNSEEN_EXTREMES * np.square(scale) / np.maximum(count, 1)
    return np.where(np.asarray(scale) > 0, least, np.inf)


def standard_error(verdict: Verdict, units: float, rules: TestRules, paired: bool) -> float:
    """Forecast the standard error at a number of units, those of both variants or, `paired`, of the
    shadow run; infinite before there is an interval."""
    now = verdict.champion_units + (0 if paired else verdict.challenger_units)
    half = (verdict.high - verdict.low) / 2
    return half / float(interval_width(now, rules)) * math.sqrt(now / units) if now else math.inf


def power(
    verdict: Verdict, effect: float, units: float, rules: TestRules, paired: bool = False
) -> float:
    """Forecast the probability that a test of so many units promotes a challenger that is better by
    `effect`. A normal approximation from the variance and the traffic split so far, at one look."""
    error = standard_error(verdict, units, rules, paired)
    return NormalDist().cdf(effect / error - float(interval_width(units, rules)))


def detectable_effect(
    verdict: Verdict, units: float, rules: TestRules, paired: bool = False
) -> float:
    """Forecast the gain that a test of so many units finds with a power of 80 %."""
    width = float(interval_width(units, rules)) + NormalDist().inv_cdf(POWER)
    return width * standard_error(verdict, units, rules, paired)


def units_needed(verdict: Verdict, effect: float, rules: TestRules, paired: bool = False) -> float:
    """Forecast the units with which a gain of `effect` is found with a power of 80 %; infinite if
    no test of a billion units would."""
    least = (
        1
        if paired
        else (verdict.champion_units + verdict.challenger_units)
        / max(1, min(verdict.champion_units, verdict.challenger_units))
    )
    for units in np.geomspace(least * rules.least_units, 1e9, 500):
        if power(verdict, effect, units, rules, paired) >= POWER:
            return float(units)
    return math.inf


def interval_width(units: Any, rules: TestRules) -> Any:
    """Return half the interval in standard errors, by the boundary of theorem 2.2: after 1000
    units, with 5 %, 3.04 instead of 1.96.

    Its parameter rho is chosen by the paper's closed form to be tight at `tight_at` units.
    """
    log = -2 * math.log(rules.alpha)
    mixed = np.maximum(units, 1) * (log + math.log(log + 1)) / rules.tight_at  # t times rho squared
    return np.sqrt(2 * (1 + 1 / mixed) * (np.log(mixed + 1) / 2 - math.log(rules.alpha)))


def srm_log_bayes_factor(challengers: int, champions: int, share: float) -> float:
    """Return the log Bayes factor of a sample ratio mismatch: ever above log(1/p) with chance <= p.

    A mismatch means that the variants lose callers or labels differently, so the remaining scores
    do not compare. Source: Lindon and Malek, Anytime-valid inference for multinomial count data,
    NeurIPS 35 (2022), here with a beta prior around the configured share.
    """
    value = math.lgamma(SRM_PRIOR_UNITS) - math.lgamma(SRM_PRIOR_UNITS + challengers + champions)
    for count, rate in ((challengers, share), (champions, 1 - share)):
        prior = SRM_PRIOR_UNITS * rate
        value += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(rate)
    return value


def _unit_stats(
    units: np.ndarray, variant: np.ndarray, scores: np.ndarray, rules: TestRules
) -> tuple[UnitStats, UnitStats]:
    """Return the statistics of both variants' callers with a score. Each caller counts for the
    variant it met first, with its mean score there, signed so that more is better."""
    variant, scores = np.asarray(variant, bool), np.asarray(scores, np.float64)
    names, first, number = np.unique(units, return_index=True, return_inverse=True)
    used = np.isfinite(scores) & (variant == variant[first][number])
    counts = np.bincount(number[used], minlength=len(names))
    totals = np.bincount(number[used], scores[used], minlength=len(names))
    sign = 1.0 if rules.higher_is_better else -1.0
    means, challenged = sign * totals / np.maximum(counts, 1), variant[first]
    groups = []
    for chosen in (~challenged, challenged):
        values = means[chosen & (counts > 0)]
        mean = values.mean() if len(values) else 0.0
        groups.append(UnitStats(len(values), mean, values.var(ddof=1) if len(values) > 1 else 0.0))
    return groups[0], groups[1]


def _verdict(
    champion: UnitStats,
    challenger: UnitStats,
    bounds: tuple[Any, Any, Any],
    mismatch: bool,
    rules: TestRules,
) -> Verdict:
    difference, low, high = map(float, bounds)
    units = champion.count, challenger.count
    decision = "keep going"
    if mismatch:
        reason = (
            "sample ratio mismatch: units are not split as configured, so scores do not compare"
        )
    elif min(units) < rules.least_units:
        which = "that both models answered" if champion is challenger else "of each variant"
        reason = f"at least {rules.least_units} units {which} are needed"
    elif low > 0:
        decision, reason = "promote", "the challenger is better"
    elif high < rules.least_effect:
        gain = f"not better by {rules.least_effect:g}" if rules.least_effect else "worse"
        decision, reason = "stop", f"the challenger is {gain}"
    else:
        reason = "the difference is still inconclusive"
    limit = rules.most_units
    if decision == "keep going" and limit is not None and sum(units) >= limit:
        decision, reason = "stop", f"{reason}, and the limit of {limit} units is reached"
    if math.isfinite(low):
        reason += f"; difference {difference:+.3g} ({low:+.3g} to {high:+.3g})"
    return Verdict(decision, reason, difference, low, high, *units, rules.alpha)
