"""Check this project against its template and against the practices of the team.

    python -m scripts.standard [--json] [--diff] [--offline] [FOLDER]

Each check says ok, problem or not checked, and what to do. The exit code is 1 if there is a
problem. What cannot be reached or is not installed is told and fails nothing. In pyproject.toml:

    [tool.standard]
    accepted = ["Makefile", "scripts/*"]  # standard files that this project changes on purpose
    max-days = 90                         # the greatest age of the lock and of an update not taken
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from .licences import PAGE, collect, page, rows, why_not
from .origin import (
    NotChecked,
    Problem,
    Project,
    age,
    attempt,
    content,
    files,
    git,
    last_line,
    need_network,
    patch,
    read_json,
    run,
    template,
)

NOT_CHECKED = "not checked"
NO_RESULTS = "No run has been reported yet"
CARD_SECTIONS = ("Intended use", "Limits", "Ethical considerations", "Measured")
LARGEST = 1_000_000  # bytes of a committed file
CI_FILES = (".github/workflows/*.y*ml", ".gitlab-ci.yml", "azure-pipelines.yml", "Jenkinsfile")
CI_FILES += (".circleci/config.yml", "bitbucket-pipelines.yml")
CI_STEPS = {
    "make check": r"\bmake\b.*(?<!-)\bcheck\b",
    "make test": r"\bmake\b.*\btest\b",
    "make report ARGS=--check": r"\breport\b.*--check",
    "make audit": r"\bmake\b.*\baudit\b",
    "make image": r"\bmake\b.*\bimage\b",
}


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("make standard", description=__doc__, formatter_class=raw)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--diff", action="store_true", help="print what the template would change")
    parser.add_argument("--offline", action="store_true", help="leave out what needs a network")
    options = parser.parse_args()
    os.chdir(options.folder)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        project = Project(Path(work), options.offline)
        results = [judge(check, project) for check in CHECKS[: 2 if options.diff else None]]
        if options.diff:
            if text := next((r["text"] for r in results if r["state"] == NOT_CHECKED), None):
                sys.exit(f"error: {text}")
            print("".join(patch(project)), end="")
    problems = sum(result["state"] == "problem" for result in results)
    if options.json:
        origin = {key: project.record.get(key) for key in ("template", "version", "commit")}
        summary = {"project": project.name, **origin, "problems": problems, "checks": results}
        print(json.dumps(summary, indent=2))
    elif not options.diff:
        for result in results:
            print(f"{result['state']:<12} {result['check']:<11} {result['text']}")
            if result["advice"]:
                print(f"{'':<24} → {result['advice']}")
        print(f"\n{problems} problem{'s' * (problems != 1)}")
    return 1 if problems else 0


def judge(check: Any, project: Project) -> dict[str, str]:
    state, text, advice = "ok", "", ""
    try:
        text = check(project)
    except (Problem, NotChecked) as found:
        state = "problem" if isinstance(found, Problem) else NOT_CHECKED
        text, advice = (*found.args, "")[:2]
    except (OSError, ValueError, KeyError) as error:  # of a file that is missing or damaged
        state, text = "problem", f"{type(error).__name__}: {error}"
    return {"check": check.__name__, "state": state, "text": text, "advice": advice}


def ci(project: Project) -> str:
    """Look for the steps of continuous integration, and how it ended last."""
    texts = [path.read_text(encoding="utf-8") for each in CI_FILES for path in Path().glob(each)]
    if not texts:
        if project.record.get("answers", {}).get("ci") == "none":
            raise NotChecked("the project was made without")
        raise Problem("there is none", "restore the template's files")
    lines = [re.sub(r"(^|\s)#.*", "", line) for text in texts for line in text.splitlines()]
    missing = [step for step, pattern in CI_STEPS.items() if not has(pattern, lines)]
    if missing:
        raise Problem(f"does not run: {', '.join(missing)}", "add them to its file")
    if has(r"(continue-on-error|allow_failure):\s*true", lines):
        raise Problem("a step may fail: continue-on-error or allow_failure", "remove that line")
    text, gh = "all steps are there", shutil.which("gh")
    if project.offline or not gh or not Path(".github/workflows/ci.yml").exists():
        return f"{text}; whether it passes is not known here"
    command = [gh, "run", "list", "--workflow", "ci.yml", "--branch", "main", "--limit", "1"]
    command += ["--status", "completed", "--json", "conclusion", "--jq", ".[].conclusion"]
    conclusion = run(command, f"{text}; gh does not say whether it passes")
    if conclusion not in ("success", ""):
        raise Problem(f"the newest run on main ended with {conclusion}", "gh run view --log-failed")
    return f"{text} and pass" if conclusion else f"{text}; it has not run on main yet"


def has(pattern: str, lines: list[str]) -> bool:
    return any(re.search(pattern, line) for line in lines)


def lock(project: Project) -> str:
    """Compare constraints.txt with the requirements, and look at its age."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        raise NotChecked("needs the environment", "make setup") from None
    pins: dict[str, list[str]] = {}
    for line in Path("constraints.txt").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"([\w.-]+)==([^\s;]+)", line):
            pins.setdefault(plain(found[1]), []).append(found[2])
    for text in requirements(project.pyproject):
        requirement = Requirement(text)
        versions = pins.get(plain(requirement.name), [])
        if not versions or not all(requirement.specifier.contains(v, True) for v in versions):
            found = " and ".join(versions) or "nothing"
            raise Problem(f"constraints.txt has {found} for {text}", "make lock")
    if git("rev-parse", "--is-shallow-repository") == "true":
        return f"{len(pins)} versions fit; a shallow clone does not know their age"
    # A new repository has no log.
    changed = attempt(["git", "log", "-1", "--format=%ct", "--", "constraints.txt"]).stdout
    if not changed:
        return f"{len(pins)} versions fit; not committed yet"
    if (days := age(changed)) > project.max_days:
        raise Problem(f"{days} days old, more than {project.max_days}", "make lock test")
    return f"{len(pins)} versions fit, {days} days old"


def requirements(pyproject: dict[str, Any]) -> list[str]:
    """List the requirements for serving, training, extras and development."""
    project = pyproject["project"]
    groups = [*project.get("optional-dependencies", {}).values()]
    groups += pyproject.get("dependency-groups", {}).values()
    names = [*project.get("dependencies", []), *(each for group in groups for each in group)]
    return [name for name in names if isinstance(name, str)]


def results(project: Project) -> str:
    """Compare the pages with the records, and their run with the model's."""
    (package,) = {path.parent.name for path in Path("src").glob("*/cli.py")}
    program = Path(sys.executable).with_name(project.name)
    command = [str(program)] if program.exists() else [sys.executable, "-m", f"{package}.cli"]
    paths = os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [*command, "report", "--check"], capture_output=True, text=True, env=environment
    )
    if done.returncode and not done.stdout:
        if "not installed" in done.stderr or "ModuleNotFoundError" in done.stderr:
            raise NotChecked("needs the environment", "make setup")
        raise Problem(f"report --check: {last_line(done.stderr)}")
    if done.returncode:
        wrong, *others = done.stdout.splitlines()
        text, _, advice = wrong.partition("; ")
        raise Problem(text + (f", and {len(others)} more" if others else ""), advice)
    if NO_RESULTS in Path("README.md").read_text(encoding="utf-8"):
        if deployed():
            raise Problem("a model is deployed, but README.md has no results", "make report")
        raise NotChecked("there are no results yet", "make train report")
    shown = read_json(Path("docs/experiments/written.json"))["run"]
    evaluated = [path.parent.name for path in Path("runs").glob("*/evaluation.json")]
    for run_name in deployed() or [max(evaluated, key=started, default=shown)]:
        if started(run_name) > started(shown):
            text = f"README.md shows run {shown}, the model is of the later {run_name}"
            raise Problem(text, f'make report ARGS="--run {run_name}"')
    return f"the pages match their records and show run {shown}"


def started(run_name: str) -> str:
    """Return when a run began, from its record or its folder; "" for an unknown one."""
    if (record := Path("docs/experiments", run_name, "record.json")).exists():
        return read_json(record)["info"]["started"]
    path = Path("runs", run_name, "run.json")
    return read_json(path)["started"] if path.exists() else ""


def deployed() -> list[str]:
    """List the versions that are served, the champion's first: names of runs."""
    path = Path(os.environ.get("APP_DEPLOYMENT_DIR", "deployment"), "deployment.json")
    deployment = read_json(path) if path.exists() else {}
    active = [deployment.get(role) for role in ("champion", "challenger")]
    return [bundle["version"] for bundle in active if bundle]


def card(project: Project) -> str:
    """Look for the model card's sections and results."""
    path = Path("MODEL_CARD.md")
    if not path.exists():
        raise Problem("MODEL_CARD.md is missing", "make report")
    text = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"), flags=re.S)
    sections = dict(re.findall(r"^## (.+)\n([^#]*)", text, re.M))
    empty = [name for name in CARD_SECTIONS if not sections.get(name, "").strip()]
    if empty:
        raise Problem(f"MODEL_CARD.md says nothing under: {', '.join(empty)}", "write it")
    if NO_RESULTS in text:
        if deployed() or NO_RESULTS not in Path("README.md").read_text(encoding="utf-8"):
            raise Problem("MODEL_CARD.md has no results, though there is a model", "make report")
        raise NotChecked("there are no results yet", "make train report")
    return "every section is filled"


def deployment(project: Project) -> str:
    """Check that what is served is there as deployed and comes from a recorded run."""
    if not (versions := deployed()):
        raise NotChecked("nothing is deployed here")
    folder = Path(os.environ.get("APP_DEPLOYMENT_DIR", "deployment"))
    state = read_json(folder / "deployment.json")
    for bundle in filter(None, [state["champion"], state.get("challenger")]):
        manifest = content(folder / bundle["bundle"] / "manifest.json")
        if manifest is None:
            raise Problem(f"{folder / bundle['bundle']} is missing", "make rollback, or deploy")
        if hashlib.sha256(manifest).hexdigest() != bundle["manifest_sha256"]:
            raise Problem(f"{folder / bundle['bundle']} was changed", "make rollback, or deploy")
    for name in versions:
        record = f"docs/experiments/{name}/record.json"
        if not Path(record).exists():
            advice = f'make report ARGS="--run {name}"'
            raise Problem(f"run {name} is deployed, but has no record", advice)
        if record not in project.tracked:
            raise Problem(f"{record} is not committed", "git add docs/experiments")
    return f"{', '.join(versions)}: there, unchanged, recorded"


def licences(project: Project) -> str:
    """Read the licences of what is installed, and compare them with their page."""
    try:
        packages = collect(project.pyproject)
    except (ImportError, PackageNotFoundError):
        raise NotChecked("needs the environment", "make setup") from None
    if problem := why_not(packages):
        raise Problem(problem)
    _, listed, _ = page()
    if "| server |" not in listed:
        raise NotChecked(f"{PAGE} does not list them yet", "make licences")
    if lacking := [row for row in rows(packages) if row not in listed]:
        raise Problem(f"{PAGE} lacks {lacking[0]}", "make licences")
    return f"{len(packages)} packages, all listed"


def secrets(project: Project) -> str:
    """Look for committed secrets with the command of `make audit`."""
    need_network(project)
    if not project.tracked:
        raise NotChecked("nothing is committed yet")
    done = attempt(["make", "--no-print-directory", "secrets"])
    if done.returncode == 0:
        return f"none in {len(project.tracked)} files"
    if places := re.findall(r"^Location:\s+(.+)$", done.stdout, re.M):
        advice = "revoke them, then remove them; mark what is none: pragma: allowlist secret"
        raise Problem(f"possible ones in {', '.join(places)}", advice)
    raise NotChecked(f"detect-secrets could not run: {last_line(done.stderr)}")


def large(project: Project) -> str:
    """Look for committed files that are large, or that .gitignore names."""
    ignored = git("ls-files", "--cached", "--ignored", "--exclude-standard").splitlines()
    paths = [Path(name) for name in project.tracked]
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    big = [f"{path} ({size / 1e6:.1f} MB)" for path, size in sizes.items() if size > LARGEST]
    if ignored or big:
        raise Problem(f"committed: {', '.join(ignored + big)}", "git rm --cached FILE")
    return f"{len(sizes)} files, the largest has {max(sizes.values(), default=0) / 1e3:.0f} kB"


def clean(project: Project) -> str:
    """In CI, check that no step changed a committed file."""
    if not os.environ.get("CI"):
        raise NotChecked("only where CI is set")
    if changed := git("status", "--porcelain", "--untracked-files=no"):
        raise Problem(f"changed: {', '.join(line[2:].strip() for line in changed.splitlines())}")
    return "nothing is changed"


CHECKS = (template, files, ci, lock, results, card, deployment, licences, secrets, large, clean)


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
