"""The requests of `make loop`: normal ones and those with the new consumer."""

from pathlib import Path

import numpy as np

from {{ cookiecutter.package_name }}.interfaces import SimulateModule
from {{ cookiecutter.package_name }}.task import data, simulate
from {{ cookiecutter.package_name }}.task.settings import Settings

from .test_task import hourly

SIMULATE: SimulateModule = simulate  # the type checker names a member that is missing


def test_consumer_is_the_only_change_and_no_step_is_shared(tmp_path: Path) -> None:
    settings = Settings(name="x", data=hourly(tmp_path, test_share=0.4))
    dataset, held_out = data.load(settings.data).holdout(0.6)
    normal = dataset.encode_labelled(simulate.normal_requests(dataset, held_out, settings))
    shifted = dataset.encode_labelled(simulate.shifted_requests(dataset, held_out, settings))
    contract, step = dataset.contract, dataset.contract.frequency.seconds
    last_test = dataset.test["origin"].max() + step * contract.horizon
    assert normal["origin"].min() - step * (contract.window - 1) > last_test
    last_normal = normal["origin"].max() + step * contract.horizon
    assert shifted["origin"].min() - step * (contract.window - 1) > last_normal
    windows = {key: array[-len(shifted["origin"]) :] for key, array in held_out.items()}
    np.testing.assert_array_equal(windows["known"], shifted["known"])
    load = np.concatenate([shifted[key] - windows[key] for key in ("history", "target")], axis=1)
    assert set(np.unique(load.round(3)).tolist()) == {0.0, simulate.EXTRA_LOAD}
    steps = np.arange(1 - contract.window, contract.horizon + 1)
    is_on = simulate.consumer(shifted["origin"][0] // step + steps, 24)
    np.testing.assert_allclose(load[0] / simulate.EXTRA_LOAD, is_on, atol=0.01)
    long = simulate.consumer(np.arange(90), 24)
    assert np.flatnonzero(np.diff(long)).tolist() == [17, 35, 53, 71]
