"""BentoML with adaptive batching, set as the example of its documentation."""

import bentoml
from messages import Item, Prediction, predictions
from network import LABELS, load, probabilities


@bentoml.service
class Digits:
    def __init__(self) -> None:
        self.network = load()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def predict(self, items: list[Item]) -> list[Prediction]:
        rows = probabilities(self.network, [item.pixels for item in items])
        return predictions(LABELS, rows)
