"""`make loop`: its figures come from what happened, and its README section is its own."""

import os
from pathlib import Path

import pytest
import yaml

from {{ cookiecutter.package_name }} import simulation
from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.files import replace_section
from {{ cookiecutter.package_name }}.simulation import Observation, Timeline, split_by_shares
from {{ cookiecutter.package_name }}.task.settings import Settings

from .conftest import CONFIG, PROJECT


def configured(*overrides: str) -> Settings:
    """Load the settings of the loop, with the tests' data and a network for tests."""
    return load_settings(Settings, [CONFIG, PROJECT / simulation.LOOP_CONFIG], overrides, {})


def test_the_loop_plays_with_the_data_of_the_configuration() -> None:
    stated = load_settings(Settings, CONFIG, [], {})
    settings = configured()
    assert settings.name.endswith("-loop")
    assert settings.paths.runs == Path("loop/runs")
    content = yaml.safe_load((PROJECT / simulation.LOOP_CONFIG).read_text(encoding="utf-8"))
    changed = set(content.get("data", {}))
    before, after = (each.data.model_dump() for each in (stated, settings))
    assert {key for key in before if before[key] != after[key]} <= changed
    assert not changed & {"source", "path"}


def test_the_loop_says_before_training_that_the_data_is_too_little() -> None:
    with pytest.raises(UserError) as caught:
        simulation.plan_traffic(configured("ab.least_units=5000", "live.set_aside=0.3"))
    line = str(caught.value)
    for word in ("too little data for a loop", "ab.least_units=5000", "retrain.share=0.5"):
        assert word in line
    assert simulation.simulate.MORE_TRAFFIC in line


def test_main_refuses_too_little_data_and_leaves_the_last_loop_alone(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "configs").symlink_to(PROJECT / "configs")
    simulation.MARK.parent.mkdir()
    simulation.MARK.touch()
    (simulation.LOOP_FOLDER / "last").touch()
    arguments = ["--config", str(CONFIG), "ab.least_units=5000"]
    assert simulation.main(arguments) == 2
    assert "error: too little data for a loop" in capsys.readouterr().err
    assert (simulation.LOOP_FOLDER / "last").exists()
    assert simulation.main(["--config", "nowhere.yaml"]) == 2


def test_the_loop_publishes_nothing_and_follows_no_store(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Settings] = []

    def stop(settings: Settings) -> None:
        planned.append(settings)
        raise UserError("enough")

    (work / "configs").symlink_to(PROJECT / "configs")
    monkeypatch.setattr(simulation, "plan_traffic", stop)
    for name in ("APP_DEPLOYMENT_URL", "APP_PUBLISH_TO"):
        monkeypatch.setenv(name, str(work / "store"))
    assert simulation.main(["--config", str(CONFIG), "paths.publish_to=elsewhere"]) == 2
    assert planned[0].paths.publish_to is None
    assert not {"APP_DEPLOYMENT_URL", "APP_PUBLISH_TO"} & os.environ.keys()


def test_traffic_is_planned_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = ("ab.least_units=2", "retrain.least_labels=1")
    settings, traffic = simulation.plan_traffic(configured(*rules))
    assert 0 < settings.live.set_aside < 1
    assert min(map(len, traffic)) > 0
    assert settings.train.epochs == configured().train.epochs
    monkeypatch.setattr(simulation, "EXAMPLES", 1)
    monkeypatch.setattr(simulation, "MOST_KEPT", 10)
    fewer, _ = simulation.plan_traffic(configured(*rules))
    assert fewer.train.epochs == 1, "large data is not trained on for long"
    assert fewer.live.set_aside > settings.live.set_aside


def test_mean_score_weighs_requests_and_not_parts() -> None:
    timeline = Timeline()
    timeline.observations.append(Observation(4, {"1": [0.0] * 4}, {}))
    timeline.observations.append(Observation(10, {"1": [1.0, 0.0], "2": [1.0] * 4}, {}))
    timeline.observations.append(Observation(12, {"2": [0.0, 0.0]}, {}))
    assert timeline.mean_score(since=4) == pytest.approx(5 / 8)
    assert timeline.observations[1].mean_scores == {"1": 0.5, "2": 1.0}


def test_traffic_is_split_into_disjoint_parts_that_cover_it() -> None:
    for count in (1, 7, 100):
        pairs = [(number, number) for number in range(count)]
        parts = split_by_shares(pairs, 0.45, 0.45, 0.1)
        assert [pair for part in parts for pair in part] == pairs


def test_only_the_section_between_the_markers_is_rewritten(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"mine\n{simulation.LOOP_BEGIN}\nold\n{simulation.LOOP_END}\nmine too\n")
    for _ in range(2):  # the second time changes nothing
        replace_section(page, simulation.LOOP_BEGIN, simulation.LOOP_END, ["new"])
        text = f"mine\n{simulation.LOOP_BEGIN}\n\nnew\n\n{simulation.LOOP_END}\nmine too\n"
        assert page.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        simulation.LOOP_BEGIN,
        f"{simulation.LOOP_END}{simulation.LOOP_BEGIN}",
        2 * f"{simulation.LOOP_BEGIN}{simulation.LOOP_END}",
    ],
)
def test_page_without_its_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(UserError, match=r"README\.md: must hold these two lines once"):
        replace_section(page, simulation.LOOP_BEGIN, simulation.LOOP_END, ["new"])
    assert page.read_text() == text


def test_readme_of_the_project_has_the_section_of_make_loop() -> None:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert text.index(simulation.LOOP_BEGIN) < text.index(simulation.LOOP_END)


def test_markers_of_older_projects_are_still_found(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"mine\n<!-- loop:begin, in other words -->\nold\n{simulation.LOOP_END}\n")
    replace_section(page, simulation.LOOP_BEGIN, simulation.LOOP_END, ["new"])
    assert page.read_text() == f"mine\n{simulation.LOOP_BEGIN}\n\nnew\n\n{simulation.LOOP_END}\n"
