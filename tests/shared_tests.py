"""A pytest plugin for generated projects: leave out tests that no task's code can break.

Left out is a test of a file that all tasks have, if its text leads neither to the task's package
nor to a trained model, or to a model that is only served by processes of their own (how they start,
drain and end). All else stays, so a new test runs for every task until its text shows that it is
none of the task's business.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "{{cookiecutter.project_slug}}" / "tests"
SHARED = [CORE, *ROOT.glob("templates/_overlays/mlops/*/files/tests")]
TASK = frozenset({"task", "quick", "CONFIG"})  # packages, and the configuration that names the data
PROCESSES = frozenset({"subprocess", "running", "failed_start", "server"})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect them, as `-m` and `-k` do."""
    left_out = [item for item in items if isinstance(item, pytest.Function) and not needed(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def needed(test: pytest.Function) -> bool:
    """Whether code of the task could break the test."""
    if not any((folder / test.path.name).exists() for folder in SHARED):
        return True
    names = {test.originalname, *test.fixturenames}
    if not names.isdisjoint(leading_to(test.path, TASK)):
        return True
    has_model = not names.isdisjoint({"trained", "request_items"})
    return has_model and names.isdisjoint(leading_to(test.path, PROCESSES))


@cache
def leading_to(path: Path, ends: frozenset[str]) -> set[str]:
    """Return the names of a test file that are imported from these or use one that is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set(ends)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            beside = path.with_name(f"{module}.py")
            helpers = leading_to(beside, ends) if node.level and beside.exists() else set[str]()
            for alias in node.names:
                if not found.isdisjoint(module.split(".")) or alias.name in helpers | ends:
                    found.add(alias.asname or alias.name)
    statements = [(defined(node), used(node)) for node in tree.body]
    while new := {name for names, uses in statements if uses & found for name in names} - found:
        found |= new
    return found


def defined(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module makes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}


def used(statement: ast.stmt) -> set[str]:
    """Return the variables and arguments (fixtures) in it."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return set()
    nodes = list(ast.walk(statement))
    variables = {node.id for node in nodes if isinstance(node, ast.Name)}
    return variables | {node.arg for node in nodes if isinstance(node, ast.arg)}
