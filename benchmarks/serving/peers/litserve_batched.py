"""LitServe with batching, of the size that its own benchmark has."""

import sys

import litserve
from messages import Answer, Body, predictions
from network import LABELS, load, probabilities


class Digits(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.network = load()

    def decode_request(self, request: Body) -> list[list[float]]:
        return request.items[0].pixels

    def predict(self, x: list[list[list[float]]]) -> list[list[float]]:
        return probabilities(self.network, x)

    def encode_response(self, output: list[float]) -> Answer:
        return Answer(predictions=predictions(LABELS, [output]))


if __name__ == "__main__":
    server = litserve.LitServer(Digits(max_batch_size=8, batch_timeout=0.01), accelerator="cpu")
    server.run(
        port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, access_log=False
    )
