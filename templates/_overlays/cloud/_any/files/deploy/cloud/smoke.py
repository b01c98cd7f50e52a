"""Wait until a server is ready, then send it one prediction: its model's own example.

    APP_KEY=… python deploy/cloud/smoke.py https://HOST [SECONDS]

Needs Python only; scripts/smoke.py does the same with an image on this machine. Exits with 1 if
the server is not ready within SECONDS (300) or predicts nothing.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any


def main() -> int:
    url, seconds = sys.argv[1].rstrip("/"), float(sys.argv[2]) if len(sys.argv) > 2 else 300.0
    deadline = time.monotonic() + seconds
    while (problem := not_ready(url)) is not None:
        if time.monotonic() > deadline:
            print(f"error: {url}/readyz: {problem}, for {seconds:g} s", file=sys.stderr)
            return 1
        time.sleep(1)
    try:
        route = ask(f"{url}/openapi.json")["paths"]["/v1/predict"]["post"]
        example = route["requestBody"]["content"]["application/json"]["example"]
        answer = ask(f"{url}/v1/predict", example)
        if len(answer["predictions"]) != len(example["items"]):
            raise ValueError(f"{len(example['items'])} items, answered by {answer}")
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {url}: no prediction: {reason(error)}", file=sys.stderr)
        return 1
    print(f"{url} is ready and predicts with model version {answer['model_version']}")
    return 0


def not_ready(url: str) -> str | None:
    """Return why the server is not ready; None if it is."""
    try:
        ask(f"{url}/readyz")
    except (OSError, ValueError) as error:
        return reason(error)
    return None


def reason(error: Exception) -> str:
    """Return an error as one line, with what the server said."""
    text = repr(error)
    if isinstance(error, urllib.error.HTTPError):
        text += " " + error.read().decode(errors="replace")
    return " ".join(text.split())


def ask(url: str, body: Any = None) -> Any:
    """Return the JSON that a GET, or a POST of a body, is answered with."""
    headers = {"content-type": "application/json"}
    if key := os.environ.get("APP_KEY"):
        headers["x-api-key"] = key
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=15) as response:  # noqa: S310  # nosec B310
        return json.load(response)


if __name__ == "__main__":
    sys.exit(main())
