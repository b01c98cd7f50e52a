"""FastAPI and ONNX Runtime with its default session."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI
from messages import Answer, Body, predictions

FOLDER = Path(os.environ["MODEL"])
LABELS = json.loads((FOLDER / "about.json").read_text())["labels"]
app = FastAPI()
session = onnxruntime.InferenceSession(FOLDER / "model.onnx", providers=["CPUExecutionProvider"])
(name,) = [end.name for end in session.get_inputs()]


@app.post("/predict")
async def predict(body: Body) -> Answer:
    image = np.array([item.pixels for item in body.items], np.float32)[:, None]
    logits = np.asarray(session.run(None, {name: image})[0])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows = (odds / odds.sum(axis=1, keepdims=True)).tolist()
    return Answer(predictions=predictions(LABELS, rows))
