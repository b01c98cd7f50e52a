"""Bake a project whose files are links to the template's, to edit both at once: `make sandbox`.

    python scripts/sandbox.py [--task TASK] [--mlops FORM] [PYTEST ARGUMENTS]

What a bake copies unchanged is a link in `build/sandbox/<task>`, so an editor with types and tests
opens the sandbox and edits the template. What depends on answers is written there, read-only: edit
it in the template and bake again. Then what the template has no longer goes from the sandbox, and
what was made in it (environment, runs) stays.
"""

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
OVERLAYS = TEMPLATE / "templates" / "_overlays"
TASKS = sorted(path.name for path in (OVERLAYS / "task").iterdir() if path.name[0] != "_")
BAKED = ".sandbox"  # the list of files that the last bake brought


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", default="image-classification", choices=TASKS)
    parser.add_argument("--mlops", default="full", choices=["full", "basic"])
    options, arguments = parser.parse_known_args()
    started = time.monotonic()
    sandbox = TEMPLATE / "build" / "sandbox" / options.task
    with tempfile.TemporaryDirectory() as folder:
        baked = bake(Path(folder), options.task, options.mlops)
        linked, written, removed = update(sandbox, baked, sources(baked))
    seconds, shown = time.monotonic() - started, sandbox.relative_to(TEMPLATE)
    print(f"{shown}: {linked} linked, {written} written, {removed} removed in {seconds:.1f} s")
    if not arguments:
        print(
            f'next: open it in an editor; make -C {shown} test ARGS="-x -q"; make -C {shown} check'
        )
        return 0
    sys.stdout.flush()
    python = sandbox / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    setup = subprocess.run([sys.executable, "scripts/setup.py"], cwd=sandbox).returncode
    return setup or subprocess.run([python, "-m", "pytest", *arguments], cwd=sandbox).returncode


def bake(folder: Path, task: str, mlops: str) -> Path:
    """Generate the task's project, named after the task."""
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input"]
    command += ["--default-config", "--output-dir", str(folder)]
    answers = [f"project_name={task}", f"project_slug={task}", f"task={task}", f"mlops={mlops}"]
    done = subprocess.run([*command, *answers], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return folder / task


def sources(baked: Path) -> dict[Path, Path]:
    """Find the template's file of each baked file that is a copy of it."""
    answers = json.loads((baked / ".template.json").read_text(encoding="utf-8"))["answers"]
    trees = [path / "files" for path in chosen(OVERLAYS, answers)]
    found = {}
    for tree in [TEMPLATE / "{{cookiecutter.project_slug}}", *trees]:
        for source in tree.rglob("*"):
            name = str(source.relative_to(tree))
            path = Path(name.replace("{{cookiecutter.package_name}}", answers["package_name"]))
            if same(source, baked / path):
                found[path] = source
    return found


def chosen(overlay: Path, answers: dict[str, str]) -> Iterator[Path]:
    """Yield an overlay, those that it shares and those that it holds, as the hook lays them."""
    yield overlay
    if (also := overlay / "also").exists():
        for name in also.read_text(encoding="utf-8").split():
            yield from chosen(overlay.with_name(name), answers)
    for question, answer in answers.items():
        if (overlay / question / answer).is_dir():
            yield from chosen(overlay / question / answer, answers)


def update(sandbox: Path, baked: Path, found: dict[Path, Path]) -> tuple[int, int, int]:
    """Bring the sandbox to what was baked; return how many files are linked, written, removed."""
    record = sandbox / BAKED
    before = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    paths = [path.relative_to(baked) for path in baked.rglob("*") if path.is_file()]
    paths = [path for path in paths if path.parts[0] != ".git"]
    removed = {Path(name) for name in before} - {*paths}
    for path in removed:
        (sandbox / path).unlink(missing_ok=True)
        for parent in [sandbox / parent for parent in path.parents[:-1]]:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
    for path in paths:
        put(sandbox / path, baked / path, found.get(path))
    record.write_text("".join(f"{path.as_posix()}\n" for path in paths), encoding="utf-8")
    links = sum((sandbox / path).is_symlink() for path in paths)
    return links, len(paths) - links, len(removed)


def put(target: Path, file: Path, source: Path | None) -> None:
    """Make a file of the sandbox a link to its source if it has one, else a read-only copy."""
    if target.is_symlink() and target.readlink() == source:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source:
        target.unlink(missing_ok=True)
        try:
            target.symlink_to(source)
        except OSError:  # not allowed: on Windows, unless in developer mode
            source = None
    if not source and (target.is_symlink() or not same(target, file)):
        target.unlink(missing_ok=True)
        shutil.copyfile(file, target)
        target.chmod(file.stat().st_mode & ~0o222)


def same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


if __name__ == "__main__":
    sys.exit(main())
