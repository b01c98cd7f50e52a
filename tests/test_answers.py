"""Whatever a person answers: a project that works, or one clear message and nothing written."""

import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT, cookiecutter, pyproject
from markdown_it import MarkdownIt

TEMPLATE = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
QUESTIONS = [name for name in TEMPLATE if name[0] != "_"]

BAD_NAMES = {
    "keyword": "class",
    "soft keyword": "match",
    "standard library": "json",
    "dependency": "torch",
    "namespace of Kubernetes": "default",
    "leading digit": "2fast",
    "capitals": "Reader",
    "space": "my reader",
    "separator twice": "a--b__c",
    "dot": ".",
    "parent": "..",
    "hidden": ".reader",
    "separator": "models/reader",
    "way out": "../reader",
    "backslash": "models\\reader",
    "option": "-reader",
    "not ascii": "лес",
    "longer than 30": "r" * 31,
    "quote": 'a"b',
    "code": "a;import os",
}


def refused(done, folder: Path) -> str:
    """The message of a bake that was refused: clear, and nothing stayed behind."""
    assert done.returncode != 0
    # On standard output cookiecutter adds where in its own code it noticed; the hook adds none.
    assert "Traceback" not in done.stderr
    assert not folder.exists() or not list(folder.rglob("*"))
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", ["project_slug", "package_name"])
@pytest.mark.parametrize("kind", BAD_NAMES)
def test_a_name_that_cannot_work_is_refused_with_a_valid_example(
    tmp_path: Path, name: str, kind: str
) -> None:
    folder = tmp_path / "out"
    done = cookiecutter(folder, "--no-input", f"{name}={BAD_NAMES[kind]}")
    message = refused(done, folder)
    assert name in message
    assert "example" in message
    assert not list(tmp_path.glob("*.*"))


@pytest.mark.parametrize("name", ["project_slug", "package_name", "project_name"])
def test_an_empty_name_is_refused_and_nothing_is_written_anywhere(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "out"
    message = refused(cookiecutter(folder, "--no-input", f"{name}="), folder)
    assert name in message


@pytest.mark.parametrize("title", ["🚀", "Torch", "Json", "123", "!!!", "Class"])
def test_a_title_that_makes_no_name_is_refused_with_a_valid_example(
    tmp_path: Path, title: str
) -> None:
    done = cookiecutter(tmp_path, "--no-input", f"project_name={title}")
    message = refused(done, tmp_path)
    assert "project_slug" in message
    assert "example" in message


def test_every_wrong_answer_is_named_at_once(tmp_path: Path) -> None:
    answers = ["package_name=2x", "email=nobody", "github_username=-"]
    message = refused(cookiecutter(tmp_path, "--no-input", *answers), tmp_path)
    assert all(answer.partition("=")[0] in message for answer in answers)


@pytest.mark.parametrize("strange", ["two\nlines", "bell\x07", "next\x85line", "u\u2028v"])
@pytest.mark.parametrize("name", ["project_name", "description", "full_name"])
def test_text_that_is_not_one_line_is_refused(tmp_path: Path, name: str, strange: str) -> None:
    answers = [f"{name}={strange}", "project_slug=reader"]
    message = refused(cookiecutter(tmp_path, "--no-input", *answers), tmp_path)
    assert name in message
    assert "one line" in message


@pytest.mark.parametrize(
    "text",
    [
        """double " single ' triple \"\"\" ''' end""",
        r"back \ slash \n \u0041 \\ end \ ",
        "{{ braces }} {% if x %} {# note #} ${HOME} $(id) `id`",
        "100 % of %s %(x)s",
        "Übergröße, 日本語, Ελληνικά, 🚀 and 👩‍🔬",
        "<script>alert(1)</script> &amp; <b>not bold</b>",
        "# title *star* _under_ ~~gone~~ [link](x) | pipe | !",
    ],
)
def test_free_text_is_shown_as_given_and_every_file_parses(tmp_path: Path, text: str) -> None:
    text = text.strip()
    given = {
        "project_name": text,
        "project_slug": "reader",
        "package_name": "reader",
        "description": text,
        "full_name": text,
    }
    typed = "".join(f"{given.get(name, '')}\n" for name in QUESTIONS)
    done = cookiecutter(tmp_path, typed=typed)
    assert done.returncode == 0, done.stderr
    project = pyproject(tmp_path / "reader")["project"]
    assert project["description"] == text
    assert project["authors"][0]["name"] == text
    assert text in (tmp_path / "reader" / "LICENSE").read_text(encoding="utf-8")
    for page in ("README.md", "MODEL_CARD.md"):
        assert text in shown(tmp_path / "reader" / page)


def shown(page: Path) -> str:
    """The text that a reader of the rendered page sees."""
    tokens = MarkdownIt("commonmark").enable("strikethrough").parse(page.read_text("utf-8"))
    children = [child for token in tokens for child in token.children or [token]]
    assert not [child for child in children if child.type.startswith("html_inline")]
    return "".join(child.content for child in children if child.type == "text")


def test_a_folder_that_exists_is_left_untouched(tmp_path: Path) -> None:
    mine = tmp_path / "reader" / "README.md"
    mine.parent.mkdir()
    mine.write_text("mine")
    done = cookiecutter(tmp_path, "--no-input", "project_slug=reader")
    assert done.returncode != 0
    assert "reader" in done.stdout + done.stderr
    assert mine.read_text() == "mine"
    assert list(tmp_path.rglob("*")) == [mine.parent, mine]


@pytest.mark.parametrize("name", ["ab", "zeta-forecast", "a" * 30])
def test_the_package_is_named_after_the_project(tmp_path: Path, name: str) -> None:
    assert cookiecutter(tmp_path, "--no-input", f"project_name={name}").returncode == 0
    assert pyproject(tmp_path / name)["project"]["name"] == name
    assert (tmp_path / name / "src" / name.replace("-", "_") / "cli.py").is_file()


def test_the_hooks_need_the_standard_library_only() -> None:
    for hook in (ROOT / "hooks").glob("*.py"):
        lines = hook.read_text(encoding="utf-8").splitlines()
        words = [line.split() for line in lines]
        modules = {line[1] for line in words if line[:1] in (["import"], ["from"])}
        assert modules <= sys.stdlib_module_names
        assert not modules & {"urllib", "socket", "http", "ssl"}


def test_nothing_is_asked_without_an_explanation() -> None:
    assert set(TEMPLATE["__prompts__"]) == set(QUESTIONS)
