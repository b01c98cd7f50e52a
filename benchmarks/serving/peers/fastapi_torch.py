"""Plain FastAPI and torch: the endpoint as most tutorials write it, and its `async` twin."""

from fastapi import FastAPI
from messages import Answer, Body, predictions
from network import LABELS, load, probabilities

app = FastAPI()
network = load()


@app.post("/def")
def predict(body: Body) -> Answer:
    rows = probabilities(network, [item.pixels for item in body.items])
    return Answer(predictions=predictions(LABELS, rows))


@app.post("/async")
async def predict_async(body: Body) -> Answer:
    rows = probabilities(network, [item.pixels for item in body.items])
    return Answer(predictions=predictions(LABELS, rows))
