"""Settings come from three places, and a wrong one is a line that names its source."""

import subprocess
import sys
from pathlib import Path

import pytest

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.serving import settings as serving
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings
from {{ cookiecutter.package_name }}.task.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text("name: test\ntrain:\n  lr: 0.1\n  epochs: 7\n  batch_size: 3\n")
    return path


def test_the_command_line_wins_over_the_environment_over_the_file(file: Path) -> None:
    env = {"APP_TRAIN__LR": "0.2", "APP_TRAIN__EPOCHS": "8"}
    settings = load_settings(Settings, file, ["train.lr=0.3"], env)
    assert settings.train.lr == 0.3
    assert settings.train.epochs == 8
    assert settings.train.batch_size == 3


@pytest.mark.parametrize(
    ("text", "env", "override", "expected"),
    [
        ("train:\n  lrr: 1", {}, "", "some.yaml: train.lrr=1: no such setting, did you mean tr"),
        ("trian:\n  lr: 1", {}, "", 'trian={"lr": 1}: no such setting, did you mean train?'),
        ("train:\n  lr: fast", {}, "", "some.yaml: train.lr=fast: input should be a valid number"),
        ("train:\n  lr: -1", {}, "", "some.yaml: train.lr=-1: input should be greater than 0"),
        ("train: 5", {}, "", "some.yaml: train=5: input should be a valid dictionary"),
        ("", {"APP_TRAIN__LR": "-1"}, "", "$APP_TRAIN__LR: train.lr=-1: input should be greater"),
        ("", {"APP_NOSUCH__KEY": "1"}, "", '$APP_NOSUCH__KEY: nosuch={"key": 1}: no such'),
        ("", {}, "train.epochs=0", "command line: train.epochs=0: input should be greater than or"),
        ("", {}, "train.epochs", "command line: 'train.epochs' is not of the form section.key="),
        ("", {}, "train.device=tpu", "command line: train.device=tpu: input should be 'auto'"),
        ("", {}, "train.seeds=[0,0]", "command line: train.seeds=[0, 0]: every seed may"),
        ("", {}, "train.seeds=[0,-1]", "command line: train.seeds.1=-1: input should be greater"),
        ("train: [1", {}, "", "some.yaml: is not YAML"),
        ("- 1", {}, "", "some.yaml: must hold sections with keys, found list"),
    ],
)
def test_a_wrong_setting_is_one_line_with_source_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, env: dict[str, str], override: str, expected: str
) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text if text.startswith("- ") else f"name: test\n{text}\n")
    with pytest.raises(UserError) as caught:
        load_settings(Settings, path, [override] if override else [], env)
    line = str(caught.value)
    assert expected in line
    assert "\n" not in line


def test_a_missing_name_says_how_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name: is required"):
        load_settings(Settings, None, [], {})


def test_both_names_of_the_deployment_folder_mean_the_same(file: Path) -> None:
    env = {"APP_DEPLOYMENT_DIR": "elsewhere"}
    assert load_settings(Settings, file, [], env).paths.deployment == Path("elsewhere")
    assert serving.load_server_settings(ServerSettings, [], env).deployment_dir == Path("elsewhere")


def test_the_server_names_the_source_of_a_wrong_setting_too() -> None:
    with pytest.raises(UserError, match=r"\$APP_PORT: port=http: input should be a valid integer"):
        serving.load_server_settings(ServerSettings, [], {"APP_PORT": "http"})
    with pytest.raises(UserError, match=r"command line: prt=1: no such setting, did you mean port"):
        serving.load_server_settings(ServerSettings, ["prt=1"], {})
    assert serving.misspelt_variables(ServerSettings, {"APP_PROT": "1", "APP_ENV": "x"}) == [
        "$APP_PROT is not a setting, did you mean $APP_PORT?"
    ]


def test_bad_input_ends_with_code_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train"]) == 2
    assert cli.main(["train", "--config", "nowhere.yaml"]) == 2
    assert cli.main(["predict", "nowhere.png"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["", "train", "evaluate", "report", "deploy", "serve", "predict"])
def test_help_is_quick_because_it_loads_nothing_heavy(verb: str) -> None:
    code = (
        "import sys\n"
        f"from {cli.__package__} import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        "finally:\n    print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    arguments = [sys.executable, "-c", code, *verb.split(), "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    *_, modules = done.stdout.splitlines()
    for heavy in ("torch", "mlflow", "numpy", "fastapi", "onnxruntime", "sklearn", "matplotlib"):
        assert f"'{heavy}'" not in modules
    if verb not in ("", "predict"):
        assert "key=value" in done.stdout
