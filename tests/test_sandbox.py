"""`make sandbox`: a project to work in, whose files are the template's."""

from pathlib import Path

import sandbox
from conftest import OVERLAYS, PROJECT


def test_a_sandbox_edits_the_template_and_keeps_what_was_made_in_it(tmp_path: Path) -> None:
    project = tmp_path / "sandbox"
    full = sandbox.bake(tmp_path / "full", "forecasting", "full")
    linked, written, _ = sandbox.update(project, full, sandbox.sources(full))
    package = project / "src" / "forecasting"
    sources = "src/{{cookiecutter.package_name}}"
    task = OVERLAYS / "task" / "forecasting" / "files" / sources / "task"
    assert (package / "arrays.py").resolve() == PROJECT / sources / "arrays.py"
    assert (package / "task" / "model.py").resolve() == task / "model.py"
    assert not (project / "pyproject.toml").stat().st_mode & 0o222
    assert linked > written

    made = project / "src" / "forecasting" / "store" / "mine.py"
    made.write_text("mine", encoding="utf-8")
    basic = sandbox.bake(tmp_path / "basic", "forecasting", "basic")
    sandbox.update(project, basic, sandbox.sources(basic))
    left = {path.relative_to(project) for path in project.rglob("*") if path.is_file()}
    baked = {path.relative_to(basic) for path in basic.rglob("*") if path.is_file()}
    extra = {made.relative_to(project), Path(sandbox.BAKED)}
    assert left == extra | {path for path in baked if path.parts[0] != ".git"}
    assert made.read_text(encoding="utf-8") == "mine"
    assert (task / "model.py").exists()
