"""The gate lets a challenger pass only if it is better overall and worse on no slice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from {{ cookiecutter.package_name }}.lifecycle import gate
from {{ cookiecutter.package_name }}.task import data, objective

from .labelled import settings, short_blocks

__all__ = ["short_blocks"]  # a fixture


def scores(mean: float, count: int = 400) -> np.ndarray:
    draw = np.random.default_rng(round(1000 * abs(mean)))
    return mean + 0.1 * draw.standard_normal(count)


def compared(**ahead: float) -> gate.Gate:
    """A gate in which the challenger is ahead by so much on each slice."""
    sign = 1 if objective.HIGHER_IS_BETTER else -1
    champion = scores(0.5)
    pairs = {
        name: gate.SliceScores(champion, champion + sign * scores(mean))
        for name, mean in ahead.items()
    }
    overall = pairs.pop("overall")
    return gate.Gate("a", "b", "metric", gate.compare_slices({gate.OVERALL: overall, **pairs}))


def test_better_challenger_passes() -> None:
    result = compared(overall=0.05, some=0.0, others=0.1)
    assert result.passed
    assert result.worse == []
    assert result.reason.startswith(
        "significantly better overall and not significantly worse on any slice: metric +0.0"
    )


@pytest.mark.parametrize("ahead", [-0.05, 0.0])
def test_worse_or_equal_challenger_is_rejected(ahead: float) -> None:
    result = compared(overall=ahead, some=0.1)
    assert not result.passed
    assert "not significantly better overall" in result.reason


def test_challenger_worse_on_a_slice_is_rejected_naming_the_slice() -> None:
    result = compared(overall=0.05, some=0.1, others=-0.1)
    assert not result.passed
    assert "but significantly worse on: others" in result.reason
    assert result.record()["parts"][2]["finding"] == "worse"


def test_many_slices_do_not_reject_by_chance() -> None:
    """A slice that is worse when it is compared alone may be chance when it is one of twelve."""
    sign = 1 if objective.HIGHER_IS_BETTER else -1
    draw = np.random.default_rng(0).permutation(np.linspace(-1, 1, 400))
    error = draw.std() / np.sqrt(len(draw))
    unlucky = gate.SliceScores(np.zeros(len(draw)), sign * (draw - 2.4 * error))
    whole = {gate.OVERALL: gate.SliceScores(np.zeros(40), np.ones(40))}
    others = {str(number): gate.SliceScores(np.zeros(40), np.zeros(40)) for number in range(11)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "BLOCK_LENGTH", 1)
        assert gate.compare_slices({**whole, "one": unlucky})[1].finding == "worse"
        assert gate.compare_slices({**whole, "one": unlucky, **others})[1].finding != "worse"


def test_small_slices_are_not_compared(trained: Path) -> None:
    dataset = data.load(settings().data)
    outputs = dict(np.load(next(trained.glob("runs/*")) / "outputs.npz"))
    count = len(next(iter(dataset.test.values())))
    pairs = gate.scores_by_slice(outputs, outputs, dataset, count - gate.MIN_EXAMPLES + 1)
    assert gate.PRODUCTION not in pairs
    assert gate.ORIGINAL in pairs
    assert all(each.ahead == 0 for each in gate.compare_slices(pairs))


def changed_world(old: float, share: float) -> gate.Gate:
    """A gate whose challenger gains 0.2 on production data and `old` on the original data."""
    names = {gate.PRODUCTION: 0.2, gate.ORIGINAL: old, "class": old}
    result = compared(overall=0.0, **names)
    return replace(result, slices=gate.accept_old_losses(result.slices, share))


def test_after_a_change_of_the_world_old_data_hold_no_veto_against_a_small_loss() -> None:
    result = changed_world(-0.03, 0.1)  # of 0.5
    assert result.passed
    assert result.reason.startswith("significantly better on the newest production data")
    assert "accepted losses on: original data, class" in result.reason
    assert not changed_world(-0.2, 0.1).passed
    assert not changed_world(-0.03, 0.0).passed


def test_refresh_may_be_no_better_within_its_margin() -> None:
    assert not compared(overall=0.0).passed
    refresh = replace(compared(overall=0.0), margin=0.1)
    assert refresh.passed
    assert refresh.reason.startswith("not worse overall by more than 10.0%")
    assert not replace(compared(overall=-0.1), margin=0.1).passed
