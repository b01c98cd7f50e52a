"""The requests of `make loop`: normal ones and those of the new scanner."""

from pathlib import Path

import numpy as np
import pytest

from {{ cookiecutter.package_name }}.interfaces import SimulateModule
from {{ cookiecutter.package_name }}.task import data, simulate
from {{ cookiecutter.package_name }}.task.settings import DataSettings, Settings

from .test_task import write_images

SIMULATE: SimulateModule = simulate  # the type checker names a member that is missing


@pytest.mark.parametrize("color", [False, True])
def test_new_scanner_rotates_and_dims_images(tmp_path: Path, color: bool) -> None:
    write_images(tmp_path)
    settings = Settings(
        name="x", data=DataSettings(source="folder", path=tmp_path, size=16, color=color)
    )
    dataset, held_out = data.load(settings.data).holdout(0.5)
    count = round(simulate.NORMAL_SHARE * len(held_out["label"]))
    scanned_labels = held_out["label"][count:].tolist()
    normal = simulate.normal_requests(dataset, held_out, settings)
    shifted = simulate.shifted_requests(dataset, held_out, settings)
    assert len(normal) == count
    assert simulate.SHIFTED_COUNT / 2 < len(shifted) < 2 * simulate.SHIFTED_COUNT
    labels = [dataset.contract.labels.index(truth.label) for _, truth in shifted]
    assert labels[:: len(shifted) // len(scanned_labels)] == scanned_labels
    assert dataset.encode_labelled(shifted)["image"].max() <= simulate.CONTRAST + 0.01
    assert simulate.shifted_requests(dataset, held_out, settings) == shifted
    image = np.zeros((1, 9, 9), np.float32)
    image[0, 4, :4] = 1  # a clock's hand that points to nine, and after the rotation to six
    rotated = simulate.scanned(image, 90)
    assert rotated[0, 5:, 4].min() == rotated.max() == simulate.CONTRAST
