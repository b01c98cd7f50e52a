"""Whatever a person answers: a project that works, or one clear message and nothing written."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, bake, cookiecutter, pyproject
from cookiecutter.prompt import create_env_with_context, render_variable
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from pytest_cookies.plugin import Cookies

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


@pytest.mark.parametrize("kind", BAD_NAMES)
def test_a_name_that_cannot_work_is_refused_with_a_valid_example(tmp_path: Path, kind: str) -> None:
    folder, names = tmp_path / "out", ("project_slug", "package_name")
    done = cookiecutter(folder, "--no-input", *(f"{name}={BAD_NAMES[kind]}" for name in names))
    lines = refused(done, folder).splitlines()
    for name in names:  # each is a reason of its own
        assert any(name in line and "example" in line for line in lines)
    assert not list(tmp_path.glob("*.*"))


@pytest.mark.parametrize("name", ["project_slug", "package_name", "project_name"])
def test_an_empty_name_is_refused_and_nothing_is_written_anywhere(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "out"
    message = refused(cookiecutter(folder, "--no-input", f"{name}="), folder)
    assert name in message


@pytest.mark.parametrize(
    ("title", "slug"),
    {
        "Customer Churn Prediction Service": "customer-churn-prediction",
        "Donaudampfschifffahrtsgesellschaftskapitän": "donaudampfschifffahrtsgesellsc",
        "2048": "ml-2048",
        "3 Digits of a Very Long Number Indeed": "ml-3-digits-of-a-very-long",
        "Python": "python-model",
        "Import Linter": "import-linter-model",
        "Con": "con-model",
        "日本語": "ri-ben-yu",
        "🚀": "ml-project",
        "!!!": "ml-project",
    }.items(),
)
def test_every_title_makes_a_valid_name(tmp_path: Path, title: str, slug: str) -> None:
    done = cookiecutter(tmp_path, "--no-input", f"project_name={title}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [slug]


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=60)


@settings(max_examples=300, deadline=None)
@given(title=TEXT)
def test_the_name_made_of_any_title_is_one_that_the_hook_accepts(title: str) -> None:
    environment = create_env_with_context({"cookiecutter": TEMPLATE})
    slug = render_variable(environment, TEMPLATE["project_slug"], {"project_name": title})
    assert hook().why_no_name(slug, "-") is None


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_any_text_is_shown_as_given(text: str) -> None:
    environment = Environment(loader=FileSystemLoader(ROOT / "templates"))
    escapes = environment.get_template("escapes.j2").module
    assert tomllib.loads(f"text = {escapes.toml(text)}")["text"] == text
    for start in ("", "- ", "> ", "12. ", "1) ", "+ ", "= ", "www.", "https://"):
        page = Path(tempfile.mkdtemp()) / "page.md"
        page.write_text(escapes.markdown(start + text), encoding="utf-8")
        assert shown(page) == (start + text).strip()


EMAILS = [
    '"a b"@c.de',
    "a@[IPv6:::1]",
    "(c)a@b.de",
    "{{x}}@c.de",
    "x@localhost",
    "!#$%&'*/=?^`|@c.de",
]


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(title=TEXT, description=TEXT, name=TEXT, email=st.sampled_from(EMAILS))
def test_whatever_is_accepted_can_be_installed(
    environment: Path, title: str, description: str, name: str, email: str
) -> None:
    answers = {"project_name": title, "description": description}
    answers |= {"full_name": name, "email": email}
    with tempfile.TemporaryDirectory() as folder:
        typed = "".join(f"{answers.get(question, '')}\n" for question in QUESTIONS)
        done = cookiecutter(Path(folder), typed=typed)
        assert done.returncode == 0, done.stderr
        (project,) = Path(folder).iterdir()
        (package,) = (project / "src").iterdir()
        site = Path(folder) / "site"
        installer = ["uv", "pip"] if shutil.which("uv") else [sys.executable, "-m", "pip"]
        command = [*installer, "install", "--quiet", "--no-deps", "--target", str(site)]
        command += ["--python", sys.executable] if installer[0] == "uv" else []
        subprocess.run([*command, str(project)], check=True)
        assert list(site.glob(f"*/{project.name}*"))  # the console command
        (metadata,) = site.glob("*.dist-info/METADATA")
        assert f"Name: {project.name}\n" in metadata.read_text(encoding="utf-8")
        help = [environment / "python", "-m", f"{package.name}.cli", "--help"]
        subprocess.run(help, cwd=folder, env=os.environ | {"PYTHONPATH": str(site)}, check=True)


@cache
def hook() -> ModuleType:
    """The functions of the hook that judges answers."""
    answers = {**dict.fromkeys(QUESTIONS, "x"), "email": "a@b.c", "__given_slug": "x"}
    module = ModuleType("hook")
    exec(hook_source(answers).partition("\nfound = ")[0], module.__dict__)
    return module


def hook_source(answers: dict[str, str]) -> str:
    """The hook that judges answers, as cookiecutter runs it."""
    source = (ROOT / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
    environment = create_env_with_context({"cookiecutter": answers})
    return environment.from_string(source).render(cookiecutter=answers)


def test_too_old_a_python_or_cookiecutter_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"project_slug": "x"}
    ast.parse(hook_source(answers), feature_version=(3, 8))
    with pytest.raises(SystemExit, match=r"needs cookiecutter 2\.2"):
        exec(hook_source(answers | {"__prompts__": ""}), {})
    monkeypatch.setattr(sys, "version_info", (3, 9))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11"):
        exec(hook_source(answers), {})


@pytest.mark.parametrize(
    "email", ["jörg@firma.de", ".a@b.c", "a@b..c", "a b@c.d", "nobody", "@b.c", "a@", "<a@b.c>"]
)
def test_an_address_that_the_build_refuses_is_refused(tmp_path: Path, email: str) -> None:
    message = refused(cookiecutter(tmp_path, "--no-input", f"email={email}"), tmp_path)
    assert "email" in message
    assert "example: ada@example.com" in message


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("description:", "description=None: must be text"),
        ("full_name: true", "full_name=True: must be text"),
        ("project_name: {a: b}", "project_name={'a': 'b'}: must be text"),
        ("description: 1.10", "description='1.1': must be text"),
        ("full_name: 007", "full_name='7': must be text"),
        ("full_name: .nan", "full_name='nan': must be text"),
        ("description: [a, b]", "description='a': must be text"),
        ("package_name: 7", "package_name"),
    ],
)
def test_a_configuration_file_s_values_that_are_no_text_are_named(
    tmp_path: Path, answer: str, problem: str
) -> None:
    (tmp_path / "answers.yaml").write_text(f"default_context:\n    {answer}\n")
    config = ("--config-file", str(tmp_path / "answers.yaml"))
    done = cookiecutter(tmp_path / "out", "--no-input", defaults=config)
    assert problem in refused(done, tmp_path / "out")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("2026-11-28", "date"),
        ("2026-11-28 10:00:00", "datetime"),
        ("!!binary eA==", "bytes"),
        ("!!set {a}", "set"),
    ],
)
def test_what_cookiecutter_itself_cannot_take_ends_as_documented(
    tmp_path: Path, value: str, kind: str
) -> None:
    """Before any hook, once it has all answers: it writes the defaults as JSON for a replay."""
    settings = f"replay_dir: {tmp_path}/replay\ndefault_context:\n    description: "
    (tmp_path / "answers.yaml").write_text(settings + value + "\n")
    config = ("--config-file", str(tmp_path / "answers.yaml"))
    done = cookiecutter(tmp_path / "out", "--no-input", defaults=config)
    assert done.returncode != 0
    said = done.stderr.splitlines()[-1]
    assert said == f"TypeError: Object of type {kind} is not JSON serializable"
    assert not (tmp_path / "out").exists()
    page = (ROOT / "docs" / "teams.md").read_text(encoding="utf-8")
    assert "Object of type date is not JSON serializable" in page


@pytest.mark.parametrize(
    "answers",
    [
        ["project_slug=torch", "__given_slug=fine", "package_name=fine"],
        ["project_slug=../fine", "__given_slug=fine", "package_name=fine"],
    ],
)
def test_a_private_value_that_is_given_changes_nothing(tmp_path: Path, answers: list[str]) -> None:
    folder = tmp_path / "out"
    message = refused(cookiecutter(folder, "--no-input", *answers), folder)
    assert "project_slug" in message
    assert list(tmp_path.iterdir()) in ([], [folder])


def replay(folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """Bake from a file of answers that somebody has edited."""
    answers = {**TEMPLATE, "project_slug": "reader", "package_name": "reader", "__given_slug": "x"}
    answers |= {name: values[0] for name, values in TEMPLATE.items() if isinstance(values, list)}
    answers |= changed
    answers["_copy_without_render"] = TEMPLATE["_copy_without_render"]
    del answers["__prompts__"]
    (folder / "replay.json").write_text(json.dumps({"cookiecutter": answers}))
    return cookiecutter(folder / "out", "--replay-file", str(folder / "replay.json"))


def test_a_replayed_bake_takes_what_was_changed_in_its_file(tmp_path: Path) -> None:
    changed = {"description": "New * words.", "full_name": "New Name", "project_name": "New"}
    done = replay(tmp_path, **changed)
    assert done.returncode == 0, done.stderr
    assert pyproject(tmp_path / "out" / "reader")["project"]["description"] == "New * words."
    assert "New Name" in (tmp_path / "out" / "reader" / "LICENSE").read_text()
    assert (tmp_path / "out" / "reader" / "README.md").read_text().startswith("# New\n")


def test_a_replayed_choice_that_there_is_not_is_refused(tmp_path: Path) -> None:
    message = refused(replay(tmp_path, task="poetry", license="GPL"), tmp_path / "out")
    assert "task='poetry': is none of the choices; for example: forecasting or" in message
    assert "license='GPL'" in message


def test_without_its_hooks_the_project_says_that_it_is_incomplete(tmp_path: Path) -> None:
    assert cookiecutter(tmp_path, "--no-input", "--accept-hooks", "no").returncode == 0
    (project,) = tmp_path.iterdir()
    done = subprocess.run(["make", "demo"], cwd=project, capture_output=True, text=True)
    assert done.returncode != 0
    assert "--accept-hooks no" in done.stderr


def test_inside_another_repository_no_second_one_is_made(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    done = cookiecutter(tmp_path / "services", "--no-input", "project_slug=reader")
    assert "make update" in done.stdout
    project = tmp_path / "services" / "reader"
    assert not (project / ".git").exists()
    subprocess.run(["git", "add", "--all"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("/build/\n")
    done = cookiecutter(tmp_path / "build", "--no-input", "project_slug=reader")
    assert "cruft update" not in done.stdout
    assert (tmp_path / "build" / "reader" / ".git").exists()


def test_every_question_has_an_effect(cookies: Cookies) -> None:
    project = bake(cookies, github_username="somebody", ci="github")
    assert "somebody/ml-project" in pyproject(project)["project"]["urls"]["Repository"]
    assert "@somebody" in (project / "CODEOWNERS").read_text(encoding="utf-8")
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert "git clone https://github.com/somebody/ml-project" in readme
    assert "somebody/ml-project/actions/workflows/ci.yml/badge.svg" in readme
    record = json.loads((project / ".template.json").read_text(encoding="utf-8"))
    assert set(record["answers"]) == set(QUESTIONS)


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


def edited(project: Path) -> list[Path]:
    """Edit files of the core and of overlays, and add one, as a person would."""
    paths = [
        *(project / name for name in ("README.md", "constraints.txt", "ruff.toml", "notes.txt")),
        project / ".github" / "workflows" / "ci.yml",
        project / "configs" / "default.yaml",
        project / "tests" / "quick.py",
        project / "tests" / "test_runs.py",
        project / "src" / "reader" / "task" / "model.py",
    ]
    for path in paths:
        path.write_text("mine", encoding="utf-8")
    return paths


def test_s_keeps_every_file_that_was_there(tmp_path: Path) -> None:
    answers = ("--no-input", "project_slug=reader")
    assert cookiecutter(tmp_path, *answers).returncode == 0
    paths = edited(tmp_path / "reader")
    gone = tmp_path / "reader" / "src" / "reader" / "task" / "data.py"
    gone.unlink()
    assert cookiecutter(tmp_path, *answers, "-f", "-s").returncode == 0
    assert {path.read_text(encoding="utf-8") for path in paths} == {"mine"}
    assert gone.exists()
    assert not list((tmp_path / "reader").glob(".before*"))
    assert cookiecutter(tmp_path, *answers, "-f").returncode == 0
    kept = [path.name for path in paths if path.read_text(encoding="utf-8") == "mine"]
    assert kept == ["notes.txt"]


def test_what_would_lose_a_person_s_work_is_refused(tmp_path: Path) -> None:
    answers = ("--no-input", "project_slug=reader", "-f")
    assert cookiecutter(tmp_path, *answers).returncode == 0
    paths = edited(tmp_path / "reader")
    other = cookiecutter(tmp_path, *answers, "task=forecasting")
    assert other.returncode != 0
    assert "holds a project for image-classification, not forecasting" in other.stderr
    mine = tmp_path / "reader" / ".before-cookiecutter" / "mine"
    mine.parent.mkdir()
    mine.touch()
    done = cookiecutter(tmp_path, *answers)
    assert done.returncode != 0
    assert "an interrupted call" in done.stderr
    assert mine.exists()
    assert {path.read_text(encoding="utf-8") for path in paths} == {"mine"}


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
        modules = {
            line[1].partition(".")[0] for line in words if line[:1] in (["import"], ["from"])
        }
        assert modules <= sys.stdlib_module_names
        assert not modules & {"urllib", "socket", "http", "ssl"}


def test_nothing_is_asked_without_an_explanation() -> None:
    assert set(TEMPLATE["__prompts__"]) == set(QUESTIONS)
