"""A pytest plugin for generated projects: leave out tests that no task's code can break.

Left out is a test of a file that all tasks have, if its text leads neither to the task's package
nor to a trained model, or to a model that is only served by processes of their own (how they start,
drain and end). So are those named here, where the text cannot tell. All else stays, so a new test
runs for every task until it shows that it is none of the task's business.
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
# They train, but look at what MLflow or Optuna keeps of any run.
OF_LIBRARIES = {
    "test_a_killed_workers_first_trial_is_taken_over_and_not_pruned",
    "test_bundle_is_uploaded_again_where_mlflows_artifacts_are_missing",
    "test_model_registered_before_there_was_an_mlmodel_can_be_deployed_again",
}
# They take long and are repeated with values that are none of the task's: the first is enough.
ONCE = {
    "test_champion_that_cannot_be_compared_is_named_with_the_reason",
    "test_check_names_the_page_that_was_changed_and_the_command_that_mends_it",
    "test_difference_to_the_run_before_is_measured_on_the_same_test_rows",
    "test_full_disk_is_one_line_and_changes_no_file",
    "test_intervals_cover_the_true_mean",
    "test_intervals_cover_the_true_mean_with_few_clusters_of_unequal_size",
    "test_metadata_and_text_of_a_person_stay_in_the_model_card",
    "test_project_works_in_another_folder",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect them, as `-m` and `-k` do."""
    left_out, seen = set[pytest.Item](), set[str]()
    for item in items:
        if isinstance(item, pytest.Function):
            name = item.originalname
            if not needed(item) or name in ONCE & seen:
                left_out.add(item)
            seen.add(name)
    config.hook.pytest_deselected(items=[*left_out])
    items[:] = [item for item in items if item not in left_out]


def needed(test: pytest.Function) -> bool:
    """Whether code of the task could break the test."""
    if not any((folder / test.path.name).exists() for folder in SHARED):
        return True
    if test.originalname in OF_LIBRARIES:
        return False
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
