"""What `make loop` tells is what happened."""

import pytest

from {{ cookiecutter.package_name }}.simulation import Observation, Story, split_by_shares


def test_quality_is_the_mean_of_answers_and_not_of_parts() -> None:
    story = Story()
    story.looks.append(Observation(4, {"1": [0.0] * 4}, {}))
    story.looks.append(Observation(10, {"1": [1.0, 0.0], "2": [1.0] * 4}, {}))
    story.looks.append(Observation(12, {"2": [0.0, 0.0]}, {}))
    assert story.quality(4) == pytest.approx(5 / 8)
    assert story.looks[1].quality == {"1": 0.5, "2": 1.0}


def test_parts_of_the_traffic_are_disjoint_and_whole() -> None:
    for count in (1, 7, 100):
        pairs = [(number, number) for number in range(count)]
        parts = split_by_shares(pairs, 0.45, 0.45, 0.1)
        assert [pair for part in parts for pair in part] == pairs
