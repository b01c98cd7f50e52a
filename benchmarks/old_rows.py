"""Measure what bounds on old rows do to a retrained model: `retrain.production_share`.

    PYTHONPATH=PROJECT/src python benchmarks/old_rows.py PACKAGE

of a generated project with the task image-classification and the digits; takes about two minutes
and prints the table of docs/monitoring.md. Two worlds change: the images (the pack's own shift, a
new scanner) or their meaning (each digit is called its successor, so old rows are wrong now).
"""

import sys
import tempfile
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np

SEEDS, EPOCHS = (0, 1, 2), 10
SHARES = (0.0, 0.5, 0.8, 1.0)
PRODUCTION = 160  # labelled requests after the change, split as `retrain` splits them


def main(package: str) -> None:
    p = SimpleNamespace(
        arrays=import_module(f"{package}.arrays"),
        data=import_module(f"{package}.task.data"),
        feedback=import_module(f"{package}.training.feedback_data"),
        fit=import_module(f"{package}.training.fit"),
        gate=import_module(f"{package}.lifecycle.gate"),
        labels=import_module(f"{package}.lifecycle.labels"),
        model=import_module(f"{package}.task.model"),
        objective=import_module(f"{package}.task.objective"),
        queries=import_module(f"{package}.store.queries"),
        settings=import_module(f"{package}.task.settings").Settings,
        simulate=import_module(f"{package}.task.simulate"),
        weights=import_module(f"{package}.training.checkpoint").load_weights,
    )
    settings = p.settings(name="x")
    settings.train.__dict__["epochs"] = EPOCHS
    whole = p.data.load(settings.data)
    dataset, held_out = whole.holdout(0.6)
    worlds = {
        "images": p.simulate.shifted_requests(dataset, held_out, settings),
        "meaning": [
            (item, truth.model_copy(update={"label": str((int(truth.label) + 1) % 10)}))
            for item, truth in p.simulate.normal_requests(whole, whole.test, settings)
        ],
    }
    print(
        "| What changed | `production_share` | Rows in training | Production | Original | "
        "Gate passed | with `old_loss=1` |\n|---|---:|---:|---:|---:|---:|---:|"
    )
    for name, pairs in worlds.items():
        step = max(1, len(pairs) // PRODUCTION)
        log = [
            p.queries.LabelledExample(
                f"r{n}", 0, float(n), item.model_dump(mode="json"), truth.model_dump(mode="json")
            )
            for n, (item, truth) in enumerate(pairs[::step][:PRODUCTION])
        ]
        own = dataset if name == "images" else without_rows(p, whole, len(pairs))
        rows = p.labels.collect_rows(own, [], log, settings.retrain)
        before = p.arrays.row_count(own.test)
        figures: dict[float, list[tuple[float, ...]]] = {share: [] for share in SHARES}
        sizes = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            path.write_text(p.feedback.feedback_text(rows))
            for seed in SEEDS:
                champion: dict[str, np.ndarray] = {}
                for share in (None, *SHARES):
                    rules = settings.retrain.model_copy(update={"production_share": share or 0})
                    joined = p.feedback.with_feedback(own, path, rules)
                    test = joined.test
                    data = own if share is None else joined
                    outputs = trained(p, settings, data, test, seed, Path(folder))
                    if share is None:
                        champion = outputs
                        continue
                    sizes[share] = p.arrays.row_count(joined.train)
                    scores = p.objective.scores(outputs, test)
                    pairs_of = p.gate.scores_by_slice(champion, outputs, joined, before)
                    compared = p.gate.compare_slices(pairs_of)
                    slices = [p.gate.accept_old_losses(compared, n) for n in (rules.old_loss, 1.0)]
                    passed = [p.gate.Gate("a", "b", "accuracy", each).passed for each in slices]
                    figures[share].append((scores[before:].mean(), scores[:before].mean(), *passed))
        for share, values in figures.items():
            new, old, *passed = np.mean(values, axis=0)
            gates = " | ".join(f"{round(each * len(SEEDS))} of {len(SEEDS)}" for each in passed)
            means = f"{100 * new:.1f} % | {100 * old:.1f} %"
            print(f"| {name} | {share:g} | {sizes[share]} | {means} | {gates} |", flush=True)


def without_rows(p: SimpleNamespace, whole: object, count: int) -> object:
    """The data without the first `count` test rows, which the requests are made of."""
    return whole.keep_rows({"test": np.arange(count, p.arrays.row_count(whole.test))})


def trained(
    p: SimpleNamespace, settings: object, data: object, test: object, seed: int, folder: Path
) -> dict[str, np.ndarray]:
    """Train on `data` and return the outputs on `test`."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        p.fit.fit(p.fit.training_stage(settings, data), seed, Path(place))
        network = p.model.build(settings, data.contract)
        p.weights(Path(place) / "best.safetensors", network)
        return p.fit.predict(network, test, settings.train.batch_size)


if __name__ == "__main__":
    main(sys.argv[1])
