"""Simulate how often the gate of a retrain passes.

    PYTHONPATH=PROJECT/src python benchmarks/gate.py PACKAGE

of a generated project with the task image-classification or text-classification; takes about a
minute and prints the tables of docs/monitoring.md. The models err on 10 % of the rows and disagree
on 6 % more than their difference explains.
"""

import sys
from importlib import import_module

import numpy as np

GATES = 400
DISAGREE = 0.03  # share of rows that only one model, and that only the other, has right


def main(package: str) -> None:
    gate = import_module(f"{package}.lifecycle.gate")
    rules = import_module(f"{package}.base_settings").RetrainSettings

    def passed(
        generator: np.random.Generator,
        rows: dict[str, int],
        gain: dict[str, float],
        **change: float,
    ) -> str:
        policy, count = rules(**change), 0
        for _ in range(GATES):
            pairs = {name: draw(generator, size, gain[name]) for name, size in rows.items()}
            whole = [np.concatenate(each) for each in zip(*pairs.values(), strict=True)]
            named = {gate.OVERALL: whole, **(pairs if len(pairs) > 1 else {})}
            scores = {name: gate.SliceScores(*pair) for name, pair in named.items()}
            slices = gate.accept_old_losses(gate.compare_slices(scores), policy.old_loss)
            count += gate.Gate("a", "b", "accuracy", slices, policy.margin).passed
        return f"{100 * count / GATES:.1f}"

    generator = np.random.default_rng(20261128)
    print("| Held-out rows | equal | +0.5 points | +1 | +2 | +3 |\n|---:|---:|---:|---:|---:|---:|")
    for rows in (100, 200, 360, 1000, 3600):
        cells = [passed(generator, {"": rows}, {"": g}) for g in (0, 0.005, 0.01, 0.02, 0.03)]
        print(f"| {rows} | {' | '.join(cells)} |")
    print()
    both = {gate.ORIGINAL: 360, gate.PRODUCTION: 250}
    policies = {"`old_loss=0`": {"old_loss": 0}, "default": {}, "`margin=0.02`": {"margin": 0.02}}
    print(f"| Production, original | {' | '.join(policies)} |\n|---|---:|---:|---:|")
    cases = [(0, 0), (-0.03, 0), (0.05, 0), (0.05, 0.05), (0.6, -0.02), (0.6, -0.05), (0.6, -0.1)]
    for new, old in [*cases, (0.6, -0.2)]:
        gain = {gate.ORIGINAL: old, gate.PRODUCTION: new}
        cells = [passed(generator, both, gain, **change) for change in policies.values()]
        print(f"| {100 * new:+g}, {100 * old:+g} points | {' | '.join(cells)} |")


def draw(generator: np.random.Generator, rows: int, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Return scores 0 and 1 of both models, of which the second has `gain` more right."""
    one, other = DISAGREE + max(-gain, 0), DISAGREE + max(gain, 0)
    kind = generator.random(rows)
    both = kind > one + other + 0.07
    second = (kind >= one) & (kind < one + other)
    return (both | (kind < one)).astype(float), (both | second).astype(float)


if __name__ == "__main__":
    main(sys.argv[1])
