"""Generate a project and take it from training to a served prediction, as its user would.

    python scripts/demo.py [--task TASK] [FOLDER]

Every step is a command from the generated project's README; the end shows how long each took.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from cookiecutter.exceptions import CookiecutterException
from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).parents[1]
NAMES = {
    "image-classification": "Digit Reader",
    "text-classification": "Type Guesser",
    "forecasting": "Demand Forecaster",
    "recommendation": "Import Recommender",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=TEMPLATE / "build" / "demo")
    parser.add_argument("--task", default="image-classification", choices=list(NAMES))
    options = parser.parse_args()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # lines and dots, in a log of another encoding
    steps = Steps()
    with steps.step("bake"):
        project = bake(options.folder.resolve(), options.task)
    program = project / ".venv" / ("Scripts" if os.name == "nt" else "bin") / project.name
    with steps.step("install"):
        # The demo needs no development tools.
        run(project, sys.executable, "scripts/setup.py", "--no-dev")
    for name in ("train", "evaluate", "report", "deploy"):
        with steps.step(name):
            run(project, str(program), name)
    with steps.step("serve and predict"), server(project, program) as url:
        requests = send_requests(project, program, url)
    print(summary(project, requests, steps))
    return 0


class Steps:
    """Announce each step and time it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        print(f"\n── {name} " + "─" * (70 - len(name)), flush=True)
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


def bake(folder: Path, task: str, mlops: str = "full") -> Path:
    """Generate the task's demo project in `folder`, over one that an earlier demo left there.

    Files that the template does not write stay: environment, runs, models.
    """
    slug = NAMES[task].lower().replace(" ", "-")
    mark = folder / f".{slug}-baked-by-demo"
    if (folder / slug).exists() and not mark.exists():
        sys.exit(f"error: {folder / slug} exists and was not created by the demo; choose DEMO_DIR=")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    answers = {"project_name": NAMES[task], "task": task, "mlops": mlops}
    try:
        baked = cookiecutter(
            str(TEMPLATE),
            no_input=True,
            extra_context=answers,
            output_dir=str(folder),
            overwrite_if_exists=True,
            default_config=True,
        )
    except CookiecutterException as error:
        sys.exit(f"error: {error}")
    return Path(baked)


def run(project: Path, *command: str) -> None:
    """Run a command in the project and show its output."""
    print("$ " + " ".join([Path(command[0]).name, *command[1:]]), flush=True)
    if code := subprocess.run(command, cwd=project).returncode:
        sys.exit(f"error: {' '.join(command)} returned {code}")


@contextmanager
def server(project: Path, program: Path) -> Iterator[str]:
    """Run the project's server on a free port; it has stopped when the block is left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", project / "runs" / "server.log"
    print(f"$ {program.name} serve port={port}", flush=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(program), "serve", f"port={port}"], cwd=project, stdout=output, stderr=output
        )
        try:
            wait_until_ready(process, url, log)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
    print(f"server stopped with code {code}")
    if code and os.name != "nt":
        sys.exit(f"error: the server failed while stopping, see {log}")


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 300  # the machine may be busy
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    output = log.read_text(encoding="utf-8")
    sys.exit(f"error: the server is not ready, see {log}:\n{output}")


def send_requests(project: Path, program: Path, url: str) -> int:
    """Send the bundle's example request with `predict`, then a hundred times more; count them."""
    run(project, str(program), "predict", "--url", url)
    deployment = json.loads((project / "deployment" / "deployment.json").read_text())
    bundle = project / "deployment" / deployment["champion"]["bundle"]
    body = (bundle / "example.json").read_bytes()
    request = urllib.request.Request(
        f"{url}/v1/predict", body, {"content-type": "application/json"}
    )
    started = time.perf_counter()
    for _ in range(100):
        with urllib.request.urlopen(request, timeout=10) as response:
            json.load(response)
    milliseconds = (time.perf_counter() - started) * 10
    print(f"100 requests answered, {milliseconds:.1f} ms each on average")
    return 101


def summary(project: Path, requests: int, steps: Steps) -> str:
    """Sum up the results and where to find them."""
    readme = (project / "README.md").read_text(encoding="utf-8")
    results = readme.partition("<!-- results:begin")[2].partition("<!-- results:end")[0]
    lines = results.splitlines()
    table = [line for line in lines if line.startswith("|")]
    (claim,) = [line.strip("*") for line in lines if line.startswith("**")]
    pictures = sorted((project / "docs" / "experiments").glob("*/*.png"))
    newest = pictures[-1].parent
    total = sum(steps.seconds.values())
    times = " · ".join(f"{name} {seconds:.0f} s" for name, seconds in steps.seconds.items())
    width = min(shutil.get_terminal_size().columns, 100)
    return "\n".join(
        [
            "",
            "━" * width,
            *table,
            "",
            claim,
            "",
            f"{requests} requests served. {times} · {total:.0f} s in total.",
            "",
            f"results      {project / 'README.md'}",
            f"model card   {project / 'MODEL_CARD.md'}",
            f"pictures     {newest}",
            f"serve again  cd {project} && make serve   then http://127.0.0.1:8000",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
