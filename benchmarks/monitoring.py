"""Simulate how often drift and A/B verdicts are wrong, and how soon they are right.

    python benchmarks/monitoring.py

Needs NumPy alone, takes about two minutes and rewrites the figures between the markers of
docs/monitoring.md; the same seed gives the same figures. It imports the generated project's modules
straight from the template, of the core and of the overlay.
"""

import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = Path(__file__).parents[1]
CORE, SOURCES = TEMPLATE / "{{cookiecutter.project_slug}}", "src/{{cookiecutter.package_name}}"
OVERLAYS = TEMPLATE / "templates" / "_overlays"
FOLDERS = [CORE / SOURCES, OVERLAYS / "mlops" / "full" / "files" / SOURCES]
PACKAGE = "project"  # a name that Python can import, unlike the folder's

spec = spec_from_file_location(
    PACKAGE, FOLDERS[0] / "__init__.py", submodule_search_locations=[*map(str, FOLDERS)]
)
assert spec is not None
assert spec.loader is not None
sys.modules[PACKAGE] = module_from_spec(spec)
spec.loader.exec_module(sys.modules[PACKAGE])

ab = import_module(f"{PACKAGE}.monitoring.ab_test")
drift = import_module(f"{PACKAGE}.monitoring.drift")
reference = import_module(f"{PACKAGE}.bundle.reference")

PAGE = TEMPLATE / "docs" / "monitoring.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
SEED = 20240717
Random = np.random.Generator
Source = Callable[[Random, int, float], np.ndarray]  # rows, shift in standard deviations

WINDOWS = 400
REFERENCE = 2000  # rows
TESTS, UNITS = 1000, 3000
CLUSTERED = 400
LONG = 6000  # units of a test near a perfect score


def main() -> int:
    start = time.process_time()
    figures = (drift_figures, ab_figures, rare_figures, clustered_figures)
    lines = "\n\n".join("\n".join(part()) for part in figures).split("\n")
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    PAGE.write_text("\n".join([head + BEGIN, *lines, END + tail]), encoding="utf-8")
    print("\n".join(lines))
    print(f"{time.process_time() - start:.0f} CPU s")
    return 0


# --- drift ---------------------------------------------------------------------------------------


def normal(generator: Random, rows: int, shift: float) -> np.ndarray:
    return generator.normal(shift, 1, rows)


def counts(generator: Random, rows: int, shift: float) -> np.ndarray:
    return generator.poisson(3 + shift * 3**0.5, rows)


def words(generator: Random, rows: int, shift: float) -> np.ndarray:
    """Eight words; a shift of one moves 38 % of the rows to the rarest, as it does for a mean."""
    shares = np.array([0.5, 0.2, 0.1, 0.1, 0.04, 0.03, 0.02, 0.01])
    shares = shares * (1 - 0.38 * shift)
    shares[-1] += 0.38 * shift
    return generator.choice(list("abcdefgh"), rows, p=shares)


def series(memory: float) -> Source:
    """Standard normal values of which neighbours correlate by `memory`."""

    def draw(generator: Random, rows: int, shift: float) -> np.ndarray:
        noise = generator.normal(size=rows) * (1 - memory**2) ** 0.5
        noise[0] = generator.normal()
        values = [noise[0]]
        for step in noise[1:].tolist():
            values.append(memory * values[-1] + step)
        return np.array(values) + shift

    return draw


def late(share: float) -> Source:
    """Independent rows of which the last share is shifted."""

    def draw(generator: Random, rows: int, shift: float) -> np.ndarray:
        return generator.normal(size=rows) + shift * (np.arange(rows) >= (1 - share) * rows)

    return draw


def shuffled(source: Source) -> Source:
    def draw(generator: Random, rows: int, shift: float) -> np.ndarray:
        return generator.permutation(source(generator, rows, shift))

    return draw


def drift_figures() -> list[str]:
    slow = series(0.9)
    cases: list[tuple[str, Source, Source]] = [
        ("normal", normal, normal),
        ("Poisson counts", counts, counts),
        ("words", words, words),
        ("normal, second half shifted", normal, late(0.5)),
        ("normal, last 30 % shifted", normal, late(0.3)),
        ("AR(1) 0.5", series(0.5), series(0.5)),
        ("AR(1) 0.5, reference shuffled", shuffled(series(0.5)), series(0.5)),
        ("AR(1) 0.9", slow, slow),
        ("AR(1) 0.9, reference shuffled", shuffled(slow), slow),
        ("AR(1) 0.9, both shuffled", shuffled(slow), shuffled(slow)),
    ]
    lines = [
        f"Drift, {WINDOWS} windows each against a reference of {REFERENCE} rows, in % of windows:",
        "",
        "| Values | Rows | False alarms | p < 0.05 | Found: 0.25 sd | 0.5 sd | 1 sd |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for number, (name, expected, online) in enumerate(cases):
        for rows in (100, 300, 1000):
            generator = np.random.default_rng([SEED, number, rows])
            cells = drift_shares(generator, expected, online, rows)
            lines.append(f"| {name} | {rows} | {' | '.join(percent(x) for x in cells)} |")
    return lines


def drift_shares(generator: Random, expected: Source, online: Source, rows: int) -> list[float]:
    """Return the shares of windows with false alarms, with p < 5 % but no shift, and with alarms at
    each of three shifts."""
    counts = np.zeros(5)
    for _ in range(WINDOWS):
        bundled = {"x": reference.distribution(expected(generator, REFERENCE, 0.0))}
        still = drift.compare_distributions(bundled, {"x": online(generator, rows, 0.0)})[0]
        counts[:2] += still.drifted, still.p_value < 0.05
        for place, shift in enumerate((0.25, 0.5, 1.0)):
            row = drift.compare_distributions(bundled, {"x": online(generator, rows, shift)})[0]
            counts[2 + place] += row.drifted
    return (counts / WINDOWS).tolist()


# --- A/B -----------------------------------------------------------------------------------------


def bernoulli(rate: float) -> Source:
    """Scores 1 at this rate, else 0; `shift` is added to the rate."""
    return lambda generator, size, shift: (generator.random(size) < rate + shift).astype(float)


def lognormal(generator: Random, size: int, shift: float) -> np.ndarray:
    """Errors, signed so that more is better; `shift` makes them smaller by that share."""
    return -(1 - shift) * generator.lognormal(size=size)


def student(generator: Random, size: int, shift: float) -> np.ndarray:
    return -(1 - shift) * np.abs(generator.standard_t(3, size))


def unequal(generator: Random, size: int, shift: float) -> np.ndarray:
    """Variants whose means are equal while the challenger's variance is a tenth."""
    return generator.normal(size=size) if shift == 0 else 0.32 * generator.normal(size=size)


def ab_figures() -> list[str]:
    lines = [
        f"A/B with no difference, looked at after each of {UNITS} units from 50 labelled units of "
        f"each variant on, in % of {TESTS} tests promoted:",
        "",
        "| Scores | Share | Promoted | Stopped | Plain variance | Running means | Usual interval |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    useless: list[tuple[str, Source, float]] = [
        ("90 % right", bernoulli(0.9), 0.0),
        ("97 % right", bernoulli(0.97), 0.0),
        ("99 % right", bernoulli(0.99), 0.0),
        ("99.5 % right", bernoulli(0.995), 0.0),
        ("lognormal errors", lognormal, 0.0),
        ("Student t(3) errors", student, 0.0),
        ("challenger of a tenth of the variance", unequal, 1e-9),
    ]
    for number, (name, source, shift) in enumerate(useless):
        for share in (0.02, 0.1, 0.5):
            generator = np.random.default_rng([SEED, 100 + number, int(100 * share)])
            tests = Tests(generator, source, share, shift)
            cells = [*tests.verdicts()[:2], *tests.others()]
            lines.append(f"| {name} | {share} | {' | '.join(percent(x) for x in cells)} |")
    lines += [
        "",
        f"A/B with a better challenger, {TESTS} tests of {UNITS} units each: promoted within 1000 "
        "and all units, median units of both variants until then:",
        "",
        "| Scores | Share | Promoted by 1000 | Promoted by 3000 | Median units |",
        "|---|---:|---:|---:|---:|",
    ]
    better: list[tuple[str, Source, float]] = [
        ("90 % → 92 % right", bernoulli(0.9), 0.02),
        ("90 % → 95 % right", bernoulli(0.9), 0.05),
        ("80 % → 90 % right", bernoulli(0.8), 0.1),
        ("lognormal errors, 10 % smaller", lognormal, 0.1),
        ("lognormal errors, 20 % smaller", lognormal, 0.2),
        ("lognormal errors, 30 % smaller", lognormal, 0.3),
    ]
    for number, (name, source, shift) in enumerate(better):
        for share in (0.1, 0.5):
            generator = np.random.default_rng([SEED, 200 + number, int(100 * share)])
            promoted, _, units = Tests(generator, source, share, shift).verdicts()
            middle = np.median(units)
            shown = f"{middle:.0f}" if middle <= UNITS else f"> {UNITS}"
            soon = percent(np.mean(units <= 1000))
            lines.append(f"| {name} | {share} | {soon} | {percent(promoted)} | {shown} |")
    return lines


def rare_figures() -> list[str]:
    """Measure tests near a perfect score, where long no caller fails, with `least_effect` .005."""
    rules = ab.TestRules(least_effect=0.005, score_range=1.0)
    lines = [
        f"A/B near a perfect score, `least_effect` 0.005, {TESTS} tests of {LONG} units, in %; "
        "without the least variance in brackets:",
        "",
        "| Champion → challenger right | Share | Promoted | Stopped |",
        "|---|---:|---:|---:|",
    ]
    for number, (first, second) in enumerate([(0.99, 0.999), (0.99, 0.995), (0.99, 0.99)]):
        for share in (0.1, 0.5, None):
            generator = np.random.default_rng([SEED, 400 + number, int(100 * (share or 0))])
            cells = []
            for extremes in (ab.UNSEEN_EXTREMES, 0):
                ab.UNSEEN_EXTREMES, kept = extremes, ab.UNSEEN_EXTREMES
                promoted, stopped = rare_tests(generator, first, second, share, rules)
                ab.UNSEEN_EXTREMES = kept
                cells.append((promoted, stopped))
            columns = [f"{percent(a)} ({percent(b)})" for a, b in zip(*cells, strict=True)]
            name = f"{100 * first:g} → {100 * second:g} %"
            lines.append(f"| {name} | {share or 'shadow'} | {' | '.join(columns)} |")
    return lines


def rare_tests(
    generator: Random, first: float, second: float, share: float | None, rules: Any
) -> tuple[float, float]:
    """Return the shares of tests ever promoted and ever stopped, looked at every 10 units."""
    looks = np.arange(9, LONG, 10)
    ends = np.zeros(2)
    for _ in range(TESTS):
        # The failures of one model are independent of the other's, the worst case for a shadow run.
        right = generator.random((2, LONG)) < np.array([[first], [second]])
        if share is None:
            gain = right[1].astype(float) - right[0]
            count, mean = looks + 1, gain.cumsum()[looks] / (looks + 1)
            variance = (np.square(gain).cumsum()[looks] - count * mean**2) / (count - 1)
            least = ab.UNSEEN_EXTREMES / count
            half = ab.interval_width(count, rules) * np.sqrt(np.maximum(variance, least) / count)
            low, high, enough = mean - half, mean + half, count >= rules.least_units
        else:
            chosen = generator.random(LONG) < share
            groups = []
            for row, mask in ((right[0], ~chosen), (right[1], chosen)):
                count, hits = mask.cumsum()[looks], (row & mask).cumsum()[looks]
                mean = hits / np.maximum(count, 1)
                variance = count * mean * (1 - mean) / np.maximum(count - 1, 1)
                groups.append(ab.UnitStats(count, mean, variance))
            _, low, high = ab.confidence_interval(*groups, rules)
            enough = np.minimum(groups[0].count, groups[1].count) >= rules.least_units
        up, down = (low > 0) & enough, (high < rules.least_effect) & enough
        both = [np.flatnonzero(side)[0] if side.any() else LONG for side in (up, down)]
        ends += both[0] < both[1], both[1] < both[0]  # what is said first ends the test
    return tuple(ends / TESTS)


class Tests:
    """Many tests at once: arrays (tests, units) of scores and of the variant."""

    def __init__(self, generator: Random, source: Source, share: float, shift: float) -> None:
        size = TESTS * UNITS
        self.share = share
        self.challenger = generator.random((TESTS, UNITS)) < share
        champion = source(generator, size, 0.0).reshape(TESTS, UNITS)
        self.scores = np.where(
            self.challenger, source(generator, size, shift).reshape(TESTS, UNITS), champion
        )
        self.groups = [self.group(~self.challenger), self.group(self.challenger)]
        counts = [group.count for group in self.groups]
        self.enough = np.minimum(*counts) >= ab.TestRules().least_units

    def group(self, chosen: np.ndarray) -> ab.UnitStats:
        """Return count, mean and variance of a variant after each unit."""
        count = chosen.cumsum(axis=1)
        some = np.maximum(count, 1)
        mean = (self.scores * chosen).cumsum(axis=1) / some
        squares = (self.scores**2 * chosen).cumsum(axis=1) - some * mean**2
        return ab.UnitStats(count, mean, np.maximum(squares, 0) / np.maximum(count - 1, 1))

    def verdicts(self) -> tuple[float, float, np.ndarray]:
        """Return the shares ever promoted and ever stopped, and units until promotion or inf."""
        bounded = 1.0 if self.scores.min() >= 0 else None
        rules = ab.TestRules(score_range=bounded)
        _, low, high = ab.confidence_interval(*self.groups, rules)
        up, down = (low > 0) & self.enough, (high < 0) & self.enough
        units = np.where(up.any(axis=1), up.argmax(axis=1) + 1, np.inf)
        return up.any(axis=1).mean(), down.any(axis=1).mean(), units

    def others(self) -> list[float]:
        """Return the shares promoted with other estimates, and with 1.96 standard errors."""
        rules, units = ab.TestRules(), np.arange(1, UNITS + 1)
        champion, challenger = self.groups
        difference = challenger.mean - champion.mean
        error = np.sqrt(
            challenger.variance / np.maximum(challenger.count, 1)
            + champion.variance / np.maximum(champion.count, 1)
        )
        before = [np.pad(group.mean, ((0, 0), (1, 0)))[:, :-1] for group in self.groups]
        pseudo = (before[1] - before[0]) + np.where(
            self.challenger,
            (self.scores - before[1]) / self.share,
            -(self.scores - before[0]) / (1 - self.share),
        )
        mean = pseudo.cumsum(axis=1) / units
        spread = np.maximum((pseudo**2).cumsum(axis=1) / units - mean**2, 0)
        wide = ab.interval_width(units, rules)
        lows = (difference - wide * error, mean - wide * np.sqrt(spread / units))
        return [
            ((low > 0) & self.enough).any(axis=1).mean()
            for low in (*lows, difference - 1.96 * error)
        ]


def clustered_figures() -> list[str]:
    """Compare verdicts by caller with those that count each request as a unit."""
    generator = np.random.default_rng([SEED, 300])
    promoted = np.zeros(4)
    for _ in range(CLUSTERED):
        callers = np.minimum(generator.zipf(1.4, 4000), 1000)
        skill, gain = generator.normal(size=1001), 0.1 * generator.normal(size=1001)
        challenger = (generator.random(1001) < 0.5)[callers]
        scores = skill[callers] + 0.3 * generator.normal(size=4000)
        differences = gain[callers] + 0.3 * generator.normal(size=4000)
        looks = range(200, 4001, 200)
        every = np.arange(4000)
        tests = [
            [ab.compare_split(callers[:n], challenger[:n], scores[:n], 0.5) for n in looks],
            [ab.compare_split(every[:n], challenger[:n], scores[:n], 0.5) for n in looks],
            [ab.compare_paired(callers[:n], differences[:n]) for n in looks],
            [ab.compare_paired(callers[:n], differences[:n] + 0.1) for n in looks],
        ]
        promoted += [any(verdict.decision == "promote" for verdict in test) for test in tests]
    shares = [percent(share) for share in promoted / CLUSTERED]
    return [
        f"Callers that ask many times (Zipf 1.4, 4000 requests, looked at every 200, {CLUSTERED} "
        "tests; callers differ by 1 sd, the answers to one caller by 0.3), in % promoted:",
        "",
        "| A/B, no difference, by caller | by request, as if independent | Shadow, no difference "
        "| Shadow, better by 0.1 |",
        "|---:|---:|---:|---:|",
        f"| {' | '.join(shares)} |",
    ]


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    sys.exit(main())
