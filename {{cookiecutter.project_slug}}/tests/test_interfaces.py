"""The task's modules offer everything that the core uses.

The assignments are for the type checker (`make check`): it names a member that is missing or has
another signature. Methods that a contract or a data set lacks are named where it is created.
"""

from {{ cookiecutter.package_name }}.interfaces import (
    BaselineModule,
    ContractModule,
    DataModule,
    FiguresModule,
    InspectModule,
    ModelModule,
    ObjectiveModule,
)
from {{ cookiecutter.package_name }}.task import (
    baseline,
    contract,
    data,
    figures,
    inspection,
    model,
    objective,
)

BASELINE: BaselineModule = baseline
CONTRACT: ContractModule = contract
DATA: DataModule = data
FIGURES: FiguresModule = figures
INSPECTION: InspectModule = inspection
MODEL: ModelModule = model
OBJECTIVE: ObjectiveModule = objective


def test_the_metric_that_decides_is_shown_and_the_score_is_consistent() -> None:
    assert OBJECTIVE.PRIMARY_METRIC in OBJECTIVE.METRICS
    assert CONTRACT.SCORE.name in OBJECTIVE.METRICS


def test_every_metric_says_what_it_means_in_one_sentence() -> None:
    for metric in OBJECTIVE.METRICS.values():
        assert len(metric.meaning.split()) >= 5
        assert metric.meaning[-1] not in ". "
        assert "\n" not in metric.meaning


def test_contract_and_network_name_different_inputs_and_outputs() -> None:
    names = [*CONTRACT.INPUTS, *CONTRACT.OUTPUTS]
    assert len(set(names)) == len(names) >= 2
