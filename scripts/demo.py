"""Bake a project and take it from nothing to a served prediction, as its user would.

    python scripts/demo.py [--task TASK] [FOLDER]

Every step is a command of the baked project's README; each one's time is shown at the end.
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
    steps = Steps()
    with steps.step("bake"):
        project = bake(options.folder.resolve(), options.task)
    command = project / ".venv" / ("Scripts" if os.name == "nt" else "bin") / project.name
    with steps.step("install"):
        # Without the tools of the checks: the demo does not need them.
        run(project, sys.executable, "scripts/setup.py", "--no-dev")
    for verb in ("train", "evaluate", "report", "deploy"):
        with steps.step(verb):
            run(project, str(command), verb)
    with steps.step("serve and ask"), server(project, command) as url:
        answers = ask(project, command, url)
    print(summary(project, answers, steps))
    return 0


class Steps:
    """Announces each step and remembers how long it took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        print(f"\n── {name} " + "─" * (70 - len(name)), flush=True)
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


def bake(folder: Path, task: str) -> Path:
    """The default project in `folder`; one that an earlier demo left there is renewed.

    Its environment, runs and whatever else the template does not write stay.
    """
    slug = NAMES[task].lower().replace(" ", "-")
    mark = folder / f".{slug}-baked-by-demo"
    if (folder / slug).exists() and not mark.exists():
        sys.exit(f"error: {folder / slug} exists and was not made by the demo; choose DEMO_DIR=")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    answers = {"project_name": NAMES[task], "task": task}
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
    """Run a command in the project, its output as the user would see it."""
    print("$ " + " ".join([Path(command[0]).name, *command[1:]]), flush=True)
    if code := subprocess.run(command, cwd=project).returncode:
        sys.exit(f"error: {' '.join(command)} ended with code {code}")


@contextmanager
def server(project: Path, command: Path) -> Iterator[str]:
    """The project's server on a free port; it is stopped and has ended when the block is left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", project / "runs" / "server.log"
    print(f"$ {command.name} serve port={port}", flush=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(command), "serve", f"port={port}"], cwd=project, stdout=output, stderr=output
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
        sys.exit(f"error: the server did not end well, see {log}")


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    sys.exit(f"error: the server is not ready, see {log}:\n{log.read_text()}")


def ask(project: Path, command: Path, url: str) -> int:
    """Send real requests: the bundle's example by the verb, then a hundred of them in a row."""
    run(project, str(command), "predict", "--url", url)
    deployment = json.loads((project / "deployment" / "deployment.json").read_text())
    bundle = project / "deployment" / deployment["champion"]["bundle"]
    body = (bundle / "example.json").read_bytes()
    request = urllib.request.Request(
        f"{url}/v1/predict", body, {"content-type": "application/json"}
    )
    started = time.perf_counter()
    for _ in range(100):
        with urllib.request.urlopen(request, timeout=10) as answer:
            json.load(answer)
    milliseconds = (time.perf_counter() - started) * 10
    print(f"100 requests answered, {milliseconds:.1f} ms each on average")
    return 101


def summary(project: Path, answers: int, steps: Steps) -> str:
    """What came out and where to look."""
    readme = (project / "README.md").read_text(encoding="utf-8")
    results = readme.partition("<!-- results:begin")[2].partition("<!-- results:end")[0]
    results = results.splitlines()
    table = [line for line in results if line.startswith("|")]
    (claim,) = [line.strip("*") for line in results if line.startswith("**")]
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
            f"{answers} requests served. {times} · together {total:.0f} s.",
            "",
            f"results      {project / 'README.md'}",
            f"model card   {project / 'MODEL_CARD.md'}",
            f"pictures     {newest}",
            f"serve again  cd {project} && make serve   then http://127.0.0.1:8000/docs",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
