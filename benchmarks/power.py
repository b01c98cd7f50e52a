"""Say how large a gain must be for the gate and the A/B test to find it with a task's real scores.

    cd PROJECT && PYTHONPATH=src python PATH/benchmarks/power.py PACKAGE BASELINE

after `train` and `evaluate`; prints the tables of docs/monitoring.md. The champion is the first
seed. A challenger is another seed, a model that errs almost alike, or BASELINE, which errs
otherwise; both are shifted to the gain in question, so that only the spread of the real scores
counts.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np

GATES, CALLERS = 400, 20_000
GAINS = (0.0, 0.01, 0.02, 0.05, 0.1)  # of the champion's score


def main(package: str, baseline: str) -> None:
    p = SimpleNamespace(
        ab=import_module(f"{package}.monitoring.ab_test"),
        gate=import_module(f"{package}.lifecycle.gate"),
        objective=import_module(f"{package}.task.objective"),
        runs=import_module(f"{package}.training.runs"),
    )
    schema = import_module(f"{package}.task.settings").Settings
    (folder,) = Path("runs").glob("[0-9]*")
    run = p.runs.read_run(folder, schema(name="x"))
    dataset = run.dataset()
    with np.load(run.folder / "scores.npz") as stored:
        champion, seed = (stored[str(n)].astype(float) for n in run.settings.train.seeds[:2])
    fitted = import_module(f"{package}.task.baseline").fit_and_predict(dataset)
    outputs = next(outputs for name, outputs in fitted if name == baseline)
    challengers = {"another seed": seed, baseline: p.objective.scores(outputs, dataset.test)}
    sign = 1 if p.objective.HIGHER_IS_BETTER else -1
    mean, draw = champion.mean(), np.random.default_rng(20261128)
    spreads = ", ".join(f"to {k} {(each - champion).std():.3f}" for k, each in challengers.items())
    print(
        f"{len(champion)} test examples, champion {p.objective.PRIMARY_METRIC} {mean:.3f}, "
        f"standard deviation {champion.std():.3f}, of the difference {spreads}\n"
    )
    # 1. The gate: test examples drawn again, by what resembles each other.
    clusters = dataset.test_clusters()
    if clusters is None:
        clusters = np.arange(len(champion)) // p.objective.BLOCK_LENGTH
    groups = [np.flatnonzero(clusters == each) for each in np.unique(clusters)]
    rules = p.ab.TestRules(higher_is_better=sign > 0, score_range=1.0 if sign > 0 else None)
    heads = [f"gate: {name}" for name in challengers]
    heads += ["A/B, share 0.1", "share 0.5", *(f"shadow: {name}" for name in challengers)]
    print(f"| Gain | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    for gain in GAINS:
        cells = []
        for scores in challengers.values():
            shifted = scores - scores.mean() + mean + sign * gain * mean
            passed = 0
            for _ in range(GATES):
                chosen = draw.integers(len(groups), size=len(groups))
                rows = np.concatenate([groups[n] for n in chosen])
                number = np.repeat(np.arange(len(chosen)), [len(groups[n]) for n in chosen])
                pair = p.gate.SliceScores(champion[rows], shifted[rows], number)
                slices = p.gate.compare_slices({p.gate.OVERALL: pair})
                passed += p.gate.Gate("a", "b", "", slices).passed
            cells.append(f"{100 * passed / GATES:.1f} %")
        # 2. The A/B test: as `ab --effect` forecasts it, from many callers drawn from the scores.
        if gain:
            units = np.arange(CALLERS)
            own, others = (draw.choice(each, CALLERS) for each in (champion, seed))
            for share in (0.1, 0.5):
                challenged = draw.random(CALLERS) < share
                verdict = p.ab.compare_split(
                    units, challenged, np.where(challenged, others, own), share, rules
                )
                cells.append(p.ab.units_needed(verdict, gain * mean, rules))
            for scores in challengers.values():
                gains = draw.choice(scores - champion, CALLERS)
                verdict = p.ab.compare_paired(units, gains, rules)
                cells.append(p.ab.units_needed(verdict, gain * mean, rules, paired=True))
        texts = [
            each if isinstance(each, str) else f"{float(f'{each:.2g}'):,.0f}" for each in cells
        ]
        texts += [""] * (len(heads) - len(texts))
        print(f"| {gain:.0%} ({gain * mean:.3f}) | {' | '.join(texts)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
