"""What the model answers to each request, computed by torch without any server."""

import json

from network import FOLDER, LABELS, load, probabilities

network = load()
lines = (FOLDER / "bodies").read_text().splitlines()
rows = [probabilities(network, [json.loads(line)["items"][0]["pixels"]])[0] for line in lines]
(FOLDER / "reference.json").write_text(
    json.dumps([dict(zip(LABELS, row, strict=True)) for row in rows])
)
