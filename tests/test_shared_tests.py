"""Each task's project runs the tests that its code could break, and new tests at once."""

from pathlib import Path

import shared_tests

TESTS = """\
import subprocess

from package import cli
from package.task import data
from package.monitoring import drift

from .conftest import CONFIG
from .helper import helps, plain
from .quick import QUICK
from .servers import running

SETTINGS = [*QUICK]

@pytest.fixture
def own(tmp_path): return SETTINGS

def train(): return cli.main(["--config", CONFIG])

def test_through_own(own): ...
def test_through_train(): train()
def test_through_data(): data.load()
def test_through_helper(): helps()
def test_drift(): drift.find(plain())
def test_workers(deployment):
    with running(deployment): ...
"""


def test_a_test_is_of_the_task_if_anything_in_it_leads_there(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text(
        "from package.task.settings import Settings\n\n"
        "def helps(): return Settings()\n\ndef plain(): ...\n"
    )
    path = tmp_path / "test_some.py"
    path.write_text(TESTS)
    of_task = shared_tests.leading_to(path, shared_tests.TASK)
    through = ("own", "train", "data", "helper")
    assert {name for name in of_task if name.startswith("test_")} == {
        f"test_through_{name}" for name in through
    }
    of_processes = shared_tests.leading_to(path, shared_tests.PROCESSES)
    assert {name for name in of_processes if name.startswith("test_")} == {"test_workers"}


def test_the_tests_that_are_left_out_by_name_exist() -> None:
    texts = [
        path.read_text() for folder in shared_tests.SHARED for path in folder.glob("test_*.py")
    ]
    for name in shared_tests.OF_LIBRARIES | shared_tests.ONCE:
        assert any(f"def {name}(" in text for text in texts), name
