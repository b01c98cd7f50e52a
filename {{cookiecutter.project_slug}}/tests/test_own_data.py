"""After the data was changed every page is about the new data, whatever its names contain."""

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.experiments.example import shorten
from {{ cookiecutter.package_name }}.experiments.markdown import code, escape, markdown_table
from {{ cookiecutter.package_name }}.experiments.report import EXAMPLE_BEGIN, EXAMPLE_END
from {{ cookiecutter.package_name }}.files import read_json, write_json
from {{ cookiecutter.package_name }}.task.settings import Settings

from . import servers
from .conftest import CONFIG, FORCE, PROJECT, state_quick_data
from .quick import DEFAULT_WORDS, own_data

GENERATED = r"\A---\n.*?\n---\n|<!-- \w+:begin,.*?<!-- \w+:end -->"  # in a page
AWKWARD = ["a|b", "<b>x</b>", "`tick` *star*", "two\nlines", "back\\slash\\|", "[x](y)", "``", ""]


def run(command: str, *arguments: str) -> int:
    return cli.main([command, "--config", str(CONFIG), *arguments])


def own_settings() -> Settings:
    return load_settings(Settings, CONFIG, (), {})


def run_name(folder: Path) -> str:
    (path,) = folder.glob("runs/*/run.json")
    return path.parent.name


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was trained, reported and deployed with other data."""
    folder = tmp_path_factory.mktemp("own") / "project"
    folder.mkdir()
    for name in ("README.md", "MODEL_CARD.md"):
        shutil.copy(PROJECT / name, folder)
    ignore = shutil.ignore_patterns("experiments")  # with the default data
    shutil.copytree(PROJECT / "docs", folder / "docs", ignore=ignore)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        assert run("train", *own_data(folder / "data" / "own")) == 0
        assert run("report", "--run", run_name(folder)) == 0
        assert run("deploy", "--run", run_name(folder), *FORCE) == 0
    return folder


@pytest.fixture
def readme(work: Path) -> Path:
    """The project's README in a trained folder."""
    return Path(shutil.copy(PROJECT / "README.md", work))


def section(page: Path) -> tuple[list[str], list[Any]]:
    """The example's command, split as a shell does, and its JSON documents."""
    text = page.read_text(encoding="utf-8").split(EXAMPLE_BEGIN)[1].split(EXAMPLE_END)[0]
    shell, documents = re.findall(r"```\w+\n(.*?)```", text, re.DOTALL)
    return shlex.split(shell), [json.loads(line) for line in documents.splitlines()]


def request_of(folder: Path, command: list[str]) -> Any:
    """The body that the command sends."""
    body = command[command.index("-d") + 1]
    return read_json(folder / body[1:]) if body.startswith("@") else json.loads(body)


def tables(text: str) -> list[list[int]]:
    """How many cells each row of each table has."""
    counts: list[list[int]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            counts[-1].append(len(re.findall(r"(?<!\\)\|", line)))
        elif counts[-1]:
            counts.append([])
    return [rows for rows in counts if rows]


def test_tests_keep_their_settings_when_the_default_ones_name_other_data(
    own: Path, tmp_path: Path
) -> None:
    (info,) = own.glob("runs/*/run.json")
    config = tmp_path / "default.yaml"
    settings = read_json(info)["settings"]
    config.write_text(json.dumps(settings | {"model": {"a setting": "of another network"}}))
    state_quick_data(config)
    assert config.read_text(encoding="utf-8") == CONFIG.read_text(encoding="utf-8")


def test_no_generated_text_speaks_of_the_default_data(own: Path) -> None:
    """Around it stand a person's own words, and its names may hold any word."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    name = project["project"]["name"]
    names = {name, name.replace("-", "_"), cli.__package__ or "", own_settings().name}
    pages = own.glob("docs/experiments/**/*.md")
    texts = {path: path.read_text(encoding="utf-8") for path in pages}
    for path in (own / "README.md", own / "MODEL_CARD.md", own / "docs" / "walkthrough.md"):
        text = path.read_text(encoding="utf-8")
        texts[path] = "\n".join(re.findall(GENERATED, text, re.DOTALL))
        assert len(texts[path]) > 1000
    assert len(texts) > 4
    with servers.started(own / "deployment") as client:
        texts[own / "openapi.json"] = client.get("/openapi.json").text
    for path, text in texts.items():
        plain = re.sub("|".join(map(re.escape, names)), "", text, flags=re.IGNORECASE)
        assert not re.search(DEFAULT_WORDS, plain), path


def test_pages_describe_the_data_that_was_used(own: Path) -> None:
    (info,) = own.glob("runs/*/run.json")
    about = escape(read_json(info)["data"]["about"])
    for name in ("README.md", "MODEL_CARD.md"):
        assert about in (own / name).read_text(encoding="utf-8")


def test_run_stores_paths_inside_the_project_relative_to_it(own: Path) -> None:
    (info,) = own.glob("runs/*/run.json")
    settings = read_json(info)["settings"]
    assert settings["data"]["path"].startswith("data/own")
    assert str(own) not in json.dumps(settings)


def test_request_in_the_readme_works_and_gets_the_response_shown(own: Path) -> None:
    command, (*_, shown) = section(own / "README.md")
    request = request_of(own, command)
    with servers.started(own / "deployment") as client:
        response = client.post("/v1/predict", json=request)
        assert response.status_code == 200
        answer = {**response.json(), "request_id": "…"}
    assert json.dumps(round_off(answer)) == json.dumps(round_off(shown))


def round_off(content: Any) -> Any:
    """Shorten as the page does, with numbers of three digits: ONNX and torch differ in the last."""
    text = json.dumps(shorten(content))
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2g}", text)


def test_every_table_has_rows_of_equal_length(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(own)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{own / 'mlflow.db'}")
        assert run("evaluate", "--run", run_name(own)) == 0
    pages = [path.read_text(encoding="utf-8") for path in own.glob("**/*.md")]
    for text in [capsys.readouterr().out, *pages]:
        for counts in tables(text):
            assert len(set(counts)) == 1


def test_cells_of_any_text_keep_the_table_whole() -> None:
    lines = markdown_table([["name", "code"], *([name, code(name)] for name in AWKWARD)])
    assert len(lines) == len(AWKWARD) + 2
    assert tables("\n".join(lines)) == [[3] * len(lines)]
    assert "&lt;b>x&lt;/b>" in lines[3]


def test_text_cannot_end_the_section_of_a_page() -> None:
    assert EXAMPLE_END not in escape(f"a class {EXAMPLE_END}")


def test_notes_and_limits_of_the_data_are_reported(work: Path, readme: Path) -> None:
    (path,) = work.glob("runs/*/run.json")
    content = read_json(path)
    content["data"] |= {"notes": ["3 rows of a|b skipped.", "One filled."], "limits": ["No <i>."]}
    write_json(path, content)
    assert run("report") == 0
    listed = "What loading changed or left out:\n\n- 3 rows of a|b skipped.\n- One filled.\n"
    assert listed in readme.read_text(encoding="utf-8")
    card = (work / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert listed in card
    assert "\n- No &lt;i>.\n" in card


def test_page_without_a_section_for_the_example_stays_without(work: Path, readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace(EXAMPLE_BEGIN, "").replace(EXAMPLE_END, ""), encoding="utf-8")
    assert run("report") == 0
    assert "curl -s http://127.0.0.1:8000/v1/predict" not in readme.read_text(encoding="utf-8")


def test_half_a_section_for_the_example_is_refused_before_anything_is_written(
    work: Path, readme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = readme.read_text(encoding="utf-8").replace(EXAMPLE_END, "")
    readme.write_text(text, encoding="utf-8")
    assert run("report") == 2
    assert "README.md: must hold these two lines once" in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == text


def test_settings_of_other_sources_are_not_in_the_model_card(own: Path, trained: Path) -> None:
    for folder in (own, trained):
        text = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert "| `train.epochs`" in text
        assert "live.database" not in text
