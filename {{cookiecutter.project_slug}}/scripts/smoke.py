"""Run the server's image as it will run, with this project's deployment, and ask it.

    python scripts/smoke.py ENGINE IMAGE

Read-only, without privileges, in 256 MB. Prints what it took.
"""

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

# The engine may be on another machine, as on GitLab: DOCKER_HOST=tcp://docker:2376.
HOST = urlsplit(os.environ.get("DOCKER_HOST", "")).hostname
OPTIONS = (
    "--detach --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges"
    f" --memory 256m --publish {'' if HOST else '127.0.0.1::'}8000"
    " --env APP_DATABASE_URL=none"
)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/smoke.py ENGINE IMAGE")
    engine, image = shlex.split(sys.argv[1]), sys.argv[2]
    deployment = Path("deployment").resolve()
    if not (deployment / "deployment.json").exists():
        sys.exit(f"error: {deployment}: there is no deployment, run deploy first")
    champion = json.loads((deployment / "deployment.json").read_bytes())["champion"]
    example = (deployment / champion["bundle"] / "example.json").read_bytes()

    def run(*arguments: str) -> str:
        done = subprocess.run([*engine, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    started = time.monotonic()
    mount = f"{deployment}:/deployment:ro"
    container = run("run", *shlex.split(OPTIONS), "--volume", mount, image)
    try:
        port = run("port", container, "8000").splitlines()[0].rpartition(":")[2]
        url = f"http://{HOST or '127.0.0.1'}:{port}"
        while ask(f"{url}/readyz")[0] != 200:
            if time.monotonic() - started > 60:
                sys.exit("error: not ready after 60 s: " + run("logs", container))
            time.sleep(0.05)
        ready = time.monotonic() - started
        status, body = ask(f"{url}/v1/predict", example)
        version = json.loads(body).get("model_version")
        if (status, version) != (200, champion["version"]):
            sys.exit(f"error: the example was answered with {status}: {body.decode()}")
        print(f"ready after {ready:.1f} s; {version} answers its example")
    finally:
        run("stop", container)
        code = run("wait", container)
        run("rm", container)
    if code != "0":
        sys.exit(f"error: it ended with exit code {code}")


def ask(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return status and body of the response; status 0 while nothing listens."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310
    try:
        with direct.open(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


if __name__ == "__main__":
    main()
