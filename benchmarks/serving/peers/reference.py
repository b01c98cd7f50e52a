"""What the model answers to each request, computed by torch without any server.

Runs in the project's environment: the temperature that calibrates the model is not in the weights'
file, only in model.onnx.
"""

import json

import network
import numpy as np
import onnxruntime
import torch

lines = (network.FOLDER / "bodies").read_text().splitlines()
pixels = [json.loads(line)["items"][0]["pixels"] for line in lines]
model = network.load()
session = onnxruntime.InferenceSession(network.FOLDER / "model.onnx")
images = np.array(pixels, np.float32)[:, None]
(exported,) = session.run(None, {session.get_inputs()[0].name: images})
with torch.inference_mode():
    plain = model(torch.from_numpy(images)).numpy()
temperature = float((plain * exported).sum() / (exported * exported).sum())
network.TEMPERATURE = temperature
(network.FOLDER / "about.json").write_text(
    json.dumps({**network.ABOUT, "temperature": temperature})
)
rows = [network.probabilities(model, [one])[0] for one in pixels]
(network.FOLDER / "reference.json").write_text(
    json.dumps([dict(zip(network.LABELS, row, strict=True)) for row in rows])
)
