"""The requests of `make loop`: normal ones and those after fashions have changed."""

import numpy as np

from {{ cookiecutter.package_name }}.interfaces import SimulateModule
from {{ cookiecutter.package_name }}.task import data, simulate
from {{ cookiecutter.package_name }}.task.settings import Settings

from .test_task import named, quick_data

SIMULATE: SimulateModule = simulate  # the type checker names a member that is missing


def test_shift_swaps_popular_and_rare_items() -> None:
    dataset, held_out = data.load(quick_data()).holdout(0.5)
    counts = np.array(dataset.contract.counts)
    numbers = simulate.swapped(dataset.contract.counts)
    assert sorted(numbers) == list(range(len(counts) + 1))
    np.testing.assert_array_equal(numbers[numbers], np.arange(len(counts) + 1))
    assert counts[numbers[1 + counts.argmax()] - 1] == counts.min()
    normal = simulate.normal_requests(dataset, held_out, Settings(name="x"))
    shifted = simulate.shifted_requests(dataset, held_out, Settings(name="x"))
    users = len(held_out["seen"]) - len(normal)
    visits = len(shifted) // users
    assert visits == max(1, round(simulate.SHIFTED_COUNT / users))
    later = {key: array[len(normal) :] for key, array in held_out.items()}
    encoded = dataset.encode_labelled(shifted)
    chosen = named(dataset, numbers[encoded["target"]])
    assert chosen[::visits] == named(dataset, later["target"])
    known = [set(names) for names in named(dataset, numbers[encoded["history"]])]
    asked = [set(names) for names in named(dataset, later["history"])]
    assert all(names <= asked[place // visits] for place, names in enumerate(known))
    assert visits == 1 or any(len(a) < len(b) for a, b in zip(known[::visits], asked, strict=True))
