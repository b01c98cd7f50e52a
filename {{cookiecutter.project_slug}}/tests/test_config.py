"""Settings come from three sources; an invalid one is reported in one line with its source."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.config import UserError, describe_settings, load_settings
from {{ cookiecutter.package_name }}.serving import settings as serving
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings
from {{ cookiecutter.package_name }}.settings import Section, TrainSettings, setting
from {{ cookiecutter.package_name }}.task.settings import Settings


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text("name: test\ntrain:\n  lr: 0.1\n  epochs: 7\n  batch_size: 3\n")
    return path


def test_command_line_overrides_environment_overrides_file(config_file: Path) -> None:
    env = {"APP_TRAIN__LR": "0.2", "APP_TRAIN__EPOCHS": "8"}
    settings = load_settings(Settings, config_file, ["train.lr=0.3"], env)
    assert settings.train.lr == 0.3
    assert settings.train.epochs == 8
    assert settings.train.batch_size == 3


@pytest.mark.parametrize(
    ("text", "env", "override", "expected"),
    [
        (
            "train:\n  lrr: 1",
            {},
            "",
            "settings.yaml: train.lrr=1: no such setting, did you mean tr",
        ),
        ("trian:\n  lr: 1", {}, "", 'trian={"lr": 1}: no such setting, did you mean train?'),
        (
            "train:\n  lr: fast",
            {},
            "",
            "settings.yaml: train.lr=fast: input should be a valid number",
        ),
        ("train:\n  lr: -1", {}, "", "settings.yaml: train.lr=-1: input should be greater than 0"),
        ("train: 5", {}, "", "settings.yaml: train=5: input should be a valid dictionary"),
        ("", {"APP_TRAIN__LR": "-1"}, "", "$APP_TRAIN__LR: train.lr=-1: input should be greater"),
        ("", {"APP_NOSUCH__KEY": "1"}, "", '$APP_NOSUCH__KEY: nosuch={"key": 1}: no such'),
        ("", {}, "train.epochs=0", "command line: train.epochs=0: input should be greater than or"),
        ("", {}, "train.epochs", "command line: 'train.epochs' is not of the form section.key="),
        ("", {}, "train.device=tpu", "command line: train.device=tpu: input should be 'auto'"),
        ("", {}, "train.seeds=[0,0]", "command line: train.seeds=[0, 0]: seeds must be"),
        ("", {}, "train.seeds=[0,-1]", "command line: train.seeds.1=-1: input should be greater"),
        ("train: [1", {}, "", "settings.yaml: not valid YAML"),
        ("- 1", {}, "", "settings.yaml: must contain sections with keys, not list"),
    ],
)
def test_invalid_setting_is_one_line_with_source_key_value_and_allowed_values(
    tmp_path: Path, text: str, env: dict[str, str], override: str, expected: str
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text if text.startswith("- ") else f"name: test\n{text}\n")
    with pytest.raises(UserError) as caught:
        load_settings(Settings, path, [override] if override else [], env)
    line = str(caught.value)
    assert expected in line
    assert "\n" not in line


class Table(Section):
    separator: str = ","
    columns: list[str] = setting([], "names")


class Data(Section):
    text: str = "text"
    zone: str | None = "UTC"
    names: dict[str, str] = setting({}, "names")
    either: str | list[str] = "a"
    table: Table = Table()


class Lists(Section):
    name: str = "x"
    data: Data = Data()
    train: TrainSettings = TrainSettings(epochs=5, lr=1e-3)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.seeds=0,1", [0, 1]),
        ("train.seeds=0, 1", [0, 1]),
        ("train.seeds=[0,1]", [0, 1]),
        ("train.seeds=3", [3]),
        ("data.table.columns=temp,price", ["temp", "price"]),
        ("data.table.columns=temp", ["temp"]),
        ("data.table.columns=2014", ["2014"]),
        ("data.table.columns=[temp, a price]", ["temp", "a price"]),
        ('data.table.columns=["a,b", "c"]', ["a,b", "c"]),
        ('data.table.columns="a,b",c', ["a,b", "c"]),
        ("data.table.columns=[]", []),
        ("data.table.columns=", []),
        ("data.table.separator=,", ","),
        ("data.table.separator=;", ";"),
        ("data.text=2014", "2014"),
        ("data.text=true", "true"),
        ("data.text=[a, b]", "[a, b]"),
        ('data.text="quoted"', "quoted"),
        ("data.zone=null", None),
        ("data.zone=1e3", "1e3"),
        ("data.names.1=2", {"1": "2"}),
        ("data.either=a,b", "a,b"),
        ('data.either=["a"]', ["a"]),
    ],
)
def test_values_are_read_by_the_type_of_their_setting(override: str, expected: object) -> None:
    key, _, text = override.partition("=")
    variable = "APP_" + key.upper().replace(".", "__")
    for arguments, env in (([override], {}), ([], {variable: text})):
        value = load_settings(Lists, None, arguments, env)
        for part in key.split("."):
            value = getattr(value, part) if not isinstance(value, dict) else value
        assert value == expected


def test_error_of_a_list_or_a_text_shows_the_form(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("data:\n  text: 5\n  table:\n    columns: temp\n")
    with pytest.raises(UserError) as caught:
        load_settings(Lists, path, [], {})
    text, columns = str(caught.value).splitlines()
    assert "settings.yaml: data.text=5: input should be a valid string; put quotes" in text
    assert "write data.table.columns=a,b or data.table.columns=[a, b]" in columns


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.seed=1", "did you mean train.seeds?"),
        ("seeds=1", "did you mean train.seeds?"),
        ("data.separator=;", "did you mean data.table.separator?"),
        ("tarin.lr=1", "did you mean train"),
        ("data.qqqqqq=1", "known: data.text, data.zone, "),
    ],
)
def test_unknown_setting_names_the_nearest(override: str, hint: str) -> None:
    with pytest.raises(UserError, match="no such setting") as caught:
        load_settings(Lists, None, [override], {})
    assert hint in str(caught.value)


def test_one_set_key_keeps_the_other_defaults_of_its_section() -> None:
    train = load_settings(Lists, None, ["train.lr=1"], {}).train
    assert (train.lr, train.epochs) == (1, 5)
    assert ("train.epochs", "5") in [row[:2] for row in describe_settings(Lists)]


@pytest.mark.parametrize("section", list(Settings.model_fields))
def test_sections_of_this_project_keep_their_defaults(section: str) -> None:
    default = Settings.model_fields[section].default
    if section == "name":
        return
    for key, value in default.model_dump(mode="json").items():
        override = f"{section}.{key}={value if isinstance(value, str) else json.dumps(value)}"
        with suppress(UserError):  # some default alone is no valid configuration
            settings = load_settings(Settings, None, ["name=x", override], {})
            assert getattr(settings, section).model_dump() == default.model_dump()


def test_later_file_overrides_the_keys_that_it_has(config_file: Path) -> None:
    later = config_file.with_name("later.yaml")
    later.write_text("train:\n  lr: 0.2\n  seeds: [5]\n")
    settings = load_settings(Settings, [config_file, later], [], {})
    assert (settings.name, settings.train.lr, settings.train.epochs) == ("test", 0.2, 7)
    later.write_text("train:\n  lr: -1\n")
    with pytest.raises(UserError, match=r"later\.yaml: train\.lr=-1"):
        load_settings(Settings, [config_file, later], [], {})


def test_missing_required_setting_says_how_to_set_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name: is required"):
        load_settings(Settings, None, [], {})


def test_deployment_folder_has_one_variable_for_server_and_commands(config_file: Path) -> None:
    env = {"APP_DEPLOYMENT_DIR": "elsewhere"}
    assert load_settings(Settings, config_file, [], env).paths.deployment == Path("elsewhere")
    assert load_settings(ServerSettings, None, [], env).deployment_dir == Path("elsewhere")


def test_variables_of_sections_and_of_the_server_do_not_mix(config_file: Path) -> None:
    env = {"APP_PORT": "1", "APP_NAME": "of the platform", "APP_TRAIN__EPOCHS": "8"}
    assert load_settings(Settings, config_file, [], env).name == "test"
    assert load_settings(ServerSettings, None, [], env).port == 1


def test_keys_and_folders_that_look_like_numbers_stay_text(config_file: Path) -> None:
    env = {"APP_API_KEYS": "123", "APP_DEPLOYMENT_DIR": "7"}
    assert load_settings(ServerSettings, None, [], env).api_keys == ["123"]
    assert load_settings(ServerSettings, None, [], env).deployment_dir == Path("7")
    assert load_settings(Settings, config_file, [], env).paths.deployment == Path("7")


def test_secret_may_be_in_a_file(tmp_path: Path) -> None:
    class Schema(Section):
        database_url: str = "none"
        port: int = 1

    file = tmp_path / "url"
    file.write_text("sqlite:///of-a-file.db\n")
    variables = {"APP_DATABASE_URL_FILE": str(file), "APP_PORT_FILE": str(file)}
    assert load_settings(Schema, None, [], variables) == Schema(
        database_url="sqlite:///of-a-file.db"
    )
    variables["APP_DATABASE_URL"] = "sqlite:///first.db"
    assert load_settings(Schema, None, [], variables).database_url == "sqlite:///first.db"
    with pytest.raises(UserError, match=r"\$APP_DATABASE_URL_FILE: nowhere: cannot be read"):
        load_settings(Schema, None, [], {"APP_DATABASE_URL_FILE": "nowhere"})


def test_every_server_setting_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    for name, _, _ in describe_settings(ServerSettings):
        assert f"`APP_{name.upper()}`" in page, name


def test_invalid_server_setting_names_its_source() -> None:
    with pytest.raises(UserError, match=r"\$APP_PORT: port=http: input should be a valid integer"):
        load_settings(ServerSettings, None, [], {"APP_PORT": "http"})
    with pytest.raises(UserError, match=r"command line: prt=1: no such setting, did you mean port"):
        load_settings(ServerSettings, None, ["prt=1"], {})
    variables = {"APP_PROT": "1", "APP_ENV": "x", "APP_API_KEYS_FILE": "keys"}
    assert serving.misspelt_variables(ServerSettings, variables) == [
        "$APP_PROT is not a setting, did you mean $APP_PORT?"
    ]


def test_command_without_its_libraries_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "some.yaml"
    config.write_text("name: some\n", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "yaml", None)  # as in the server's image
    assert cli.main(["train", "--config", str(config)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: yaml is not installed: this command needs the training")


def test_invalid_input_is_one_line_and_exit_code_2(
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


@pytest.mark.parametrize(
    "command", ["", "train", "evaluate", "report", "deploy", "serve", "predict"]
)
def test_help_imports_no_heavy_library(command: str) -> None:
    code = (
        "import sys\n"
        f"from {cli.__package__} import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        "finally:\n    print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    arguments = [sys.executable, "-c", code, *command.split(), "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    *_, modules = done.stdout.splitlines()
    for heavy in ("torch", "mlflow", "numpy", "fastapi", "onnxruntime", "sklearn", "matplotlib"):
        assert f"'{heavy}'" not in modules
    if command not in ("", "predict"):
        assert "key=value" in done.stdout
