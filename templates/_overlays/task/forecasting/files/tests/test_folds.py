"""Folds of the series: a rolling origin, which never trains on the future."""

from itertools import pairwise

import numpy as np
import pytest

from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.task import data
from {{ cookiecutter.package_name }}.task.settings import DataSettings

HOUR = 3600


@pytest.mark.parametrize("count", [3, 5])
def test_folds_train_on_the_past_and_test_on_blocks_that_do_not_overlap(count: int) -> None:
    settings = DataSettings()
    ends = []
    for fold in data.folds(settings, count):
        dataset = data.load(fold)
        start = dataset.test["origin"].min() + HOUR
        for split in (dataset.train, dataset.validation):
            assert split["origin"].max() + settings.horizon * HOUR < start
        # Nothing later is known: neither to the scalers nor to the series themselves.
        last = dataset.test["origin"].max() + settings.horizon * HOUR
        assert dataset.series[0].stamps[-1] - last < settings.horizon * HOUR
        ends.append((start, last))
    assert all(last < start for (_, last), (start, _) in pairwise(ends))
    lengths = [last - start for start, last in ends]
    assert np.ptp(lengths) <= settings.horizon * HOUR
    whole = data.load(settings)
    assert ends[-1][1] == whole.test["origin"].max() + settings.horizon * HOUR


def test_series_too_short_for_the_first_fold_is_refused() -> None:
    settings = DataSettings(window=2000, seasons=[24, 168], horizon=500)
    with pytest.raises(UserError, match="fold 0 ends after"):
        data.load(data.folds(settings, 8)[0])
