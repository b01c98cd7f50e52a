"""Run the experiments that led to a task's defaults, and ship their records with the template.

    make history TASK=forecasting

The experiments are listed in scripts/histories/<task>.yaml. Those that build/history has run before
(same words and overrides) are not run again, so that a conclusion can be added to the list once
the result is known. Records, scores and pages go into the task's overlay; pictures stay behind.
"""

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path

import demo
import yaml

NAME = "history"  # in the records, in place of the project's: users' runs are not compared with it
NO_TEXT = "Not written yet."


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", default="image-classification", choices=list(demo.NAMES))
    task = parser.parse_args().task
    listed = Path(__file__).parent / "histories" / f"{task}.yaml"
    if not listed.exists():
        sys.exit(f"error: {listed} is missing; list the experiments of {task} there")
    experiments = yaml.safe_load(listed.read_text(encoding="utf-8"))
    project = demo.bake(demo.TEMPLATE / "build" / "history", task)
    program = project / ".venv" / "bin" / project.name
    if not program.exists():
        demo.run(project, sys.executable, "scripts/setup.py", "--no-dev")
    pages = project / "docs" / "experiments"
    for shipped in pages.glob("*/"):  # by an earlier history, or written by an earlier call
        shutil.rmtree(shipped)
    runs = [run_once(project, program, experiment) for experiment in experiments]
    if runs != sorted(runs):
        sys.exit(f"error: {listed} lists experiments in another order than they were run in")
    demo.run(project, str(program), "report", "--run", runs[-1])
    overlay = demo.TEMPLATE / "templates" / "_overlays" / "task" / task
    ship(
        pages, overlay / "files" / "docs" / "experiments", dict(zip(runs, experiments, strict=True))
    )
    return 0


def run_once(project: Path, program: Path, experiment: dict[str, list[str] | str]) -> str:
    """Train and evaluate an experiment unless it has been; return the run's name."""
    arguments = ["--question", experiment["question"], "--hypothesis", experiment["hypothesis"]]
    arguments += experiment["overrides"]
    for attempt in range(2):
        for evaluation in sorted((project / "runs").glob("*/evaluation.json")):
            info = json.loads(evaluation.with_name("run.json").read_text(encoding="utf-8"))
            if shlex.split(info["command"])[2:] == arguments:
                return evaluation.parent.name
        if attempt == 0:
            demo.run(project, str(program), "train", *arguments)
            demo.run(project, str(program), "evaluate")
    sys.exit(f"error: no run in {project / 'runs'} is that of: {experiment['question']}")


def ship(pages: Path, target: Path, experiments: dict[str, dict[str, str]]) -> None:
    """Replace the overlay's history by these experiments."""
    shutil.rmtree(target, ignore_errors=True)
    for run, experiment in experiments.items():
        (target / run).mkdir(parents=True)
        shutil.copy(pages / run / "scores.npz", target / run)
        record = json.loads((pages / run / "record.json").read_text(encoding="utf-8"))
        record["info"]["settings"]["name"] = NAME
        write_json(target / run / "record.json", record)
        before, heading, after = (
            (pages / run / "README.md").read_text(encoding="utf-8").rpartition("## Conclusion")
        )
        after = after.replace(NO_TEXT, experiment.get("conclusion", NO_TEXT).strip())
        (target / run / "README.md").write_text(before + heading + after, encoding="utf-8")
    shutil.copy(pages / "README.md", target)
    # No hashes of README.md and the model card: they say nothing of these runs.
    write_json(target / "written.json", {"run": max(experiments), "files": {}})


def write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
