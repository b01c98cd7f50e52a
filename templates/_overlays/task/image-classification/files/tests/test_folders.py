"""Folders of images: classes, splits, what is skipped, and what would mislead training."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.task import contract, data
from {{ cookiecutter.package_name }}.task.data import Dataset
from {{ cookiecutter.package_name }}.task.settings import DataSettings, Settings


def write(path: Path, seed: int, mode: str = "RGB") -> Path:
    """Write a small image that differs from those of all other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def fill(folder: Path, count: int = 30, first: int = 0, classes: str = "cat dog") -> Path:
    """Write `count` images for each class; `first` is the first seed."""
    for place, name in enumerate(classes.split()):
        for number in range(count):
            seed = first + 1000 * place + number
            write(folder / name / f"{number:03}.png", seed)
    return folder


def load(folder: Path, **settings: object) -> Dataset:
    options = {"source": "folder", "path": folder, "size": 8, **settings}
    return data.load(DataSettings.model_validate(options))


def refusal(folder: Path, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def notes(dataset: Dataset) -> str:
    return "\n".join(dataset.notes)


def counts(dataset: Dataset) -> list[int]:
    parts = dataset.train, dataset.validation, dataset.test
    return [len(part["label"]) for part in parts]


NAMES = [("train", "val", "test"), ("Train", "VALID", "Test"), ("training", "dev", "testing")]


@pytest.mark.parametrize("names", NAMES)
def test_folders_train_val_test_are_the_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    for part, (name, count) in enumerate(zip(names, (20, 6, 7), strict=True)):
        fill(tmp_path / name, count, first=100 * part)
    dataset = load(tmp_path)
    assert dataset.contract.labels == ["cat", "dog"]
    assert counts(dataset) == [40, 12, 14]
    assert f"The splits are the folders {', '.join(sorted(names))}" in notes(dataset)
    assert "66 images of 2 classes" in dataset.about
    assert dataset.about.endswith("split by its own folders.")
    expected = contract.scaled(np.asarray(Image.open(tmp_path / names[2] / "cat" / "000.png")))
    np.testing.assert_array_equal(dataset.test["image"][0].transpose(1, 2, 0), expected)


@pytest.mark.parametrize("missing", ["val", "test", "val test"])
def test_missing_split_is_taken_from_train_and_told(tmp_path: Path, missing: str) -> None:
    for part, name in enumerate(("train", "val", "test")):
        if name not in missing:
            fill(tmp_path / name, 40, first=100 * part)
    dataset = load(tmp_path)
    assert all(counts(dataset))
    given = 80 * (3 - len(missing.split()))
    assert sum(counts(dataset)) == given
    assert "by the hash of each image" in dataset.about
    for name, split in (("val", dataset.validation), ("test", dataset.test)):
        assert (len(split["label"]) == 80) == (name not in missing)
    named = missing.replace("val", "validation").replace(" ", " and ")
    assert f"No labelled folder for {named}: taken from train by hash" in notes(dataset)


def test_separate_test_folder_by_a_setting(tmp_path: Path) -> None:
    fill(tmp_path / "pictures")
    fill(tmp_path / "pictures" / "later", 5, first=500)
    dataset = load(tmp_path / "pictures", test_path=tmp_path / "pictures" / "later")
    assert dataset.contract.labels == ["cat", "dog"]
    assert counts(dataset)[2] == 10
    assert sum(counts(dataset)) == 70
    assert "no such folder (data.test_path)" in refusal(tmp_path, test_path=tmp_path / "no")
    fill(tmp_path / "both" / "train")
    fill(tmp_path / "both" / "test", 5, first=700)
    message = refusal(tmp_path / "both", test_path=tmp_path / "pictures" / "later")
    assert "test: is a second test split beside data.test_path" in message
    with pytest.raises(ValueError, match="test_path needs source=folder"):
        DataSettings(test_path=tmp_path)


def test_ambiguous_layouts_are_refused_by_name_with_a_way_on(tmp_path: Path) -> None:
    mixed = fill(tmp_path / "mixed", classes="bus cat train")
    assert "train would be splits, but bus, cat are beside them" in refusal(mixed)
    assert "data.layout=classes" in refusal(mixed)
    assert load(mixed, layout="classes").contract.labels == ["bus", "cat", "train"]
    twice = tmp_path / "twice"
    for part, name in enumerate(("train", "val", "valid")):
        fill(twice / name, 5, first=100 * part)
    assert "val, valid are the same split" in refusal(twice)
    shutil.rmtree(twice / "train")
    shutil.rmtree(twice / "valid")
    assert "has val, but no folder train" in refusal(twice)
    years = tmp_path / "years"
    for part, name in enumerate(("2023", "2024")):
        fill(years / name, 12, first=100 * part)
    assert "2023, 2024 all hold the folders cat, dog: which are the classes?" in refusal(years)
    assert load(years, layout="classes").contract.labels == ["2023", "2024"]
    inside_out = tmp_path / "inside-out"
    for part, name in enumerate(("cat", "dog")):
        fill(inside_out / name, 12, first=100 * part, classes="train test")
    assert "cat, dog all hold the folders test, train: which" in refusal(inside_out)


def test_folder_around_the_class_folders_is_stepped_into_and_told(tmp_path: Path) -> None:
    fill(tmp_path / "archive" / "images")
    dataset = load(tmp_path)
    assert dataset.contract.labels == ["cat", "dog"]
    assert "archive/images: the folders in there are taken" in notes(dataset)
    split = tmp_path / "split"
    fill(split / "data" / "train" / "images")
    assert load(split).contract.labels == ["cat", "dog"]


def test_images_without_class_folders_are_refused_or_told(tmp_path: Path) -> None:
    write(tmp_path / "flat" / "1.png", 1)
    write(tmp_path / "flat" / "2.png", 2)
    assert "holds 2 images but no folder per class, expected" in refusal(tmp_path / "flat")
    fill(tmp_path / "loose")
    write(tmp_path / "loose" / "3.png", 3000)
    assert "1 images in no class folder are not used" in notes(load(tmp_path / "loose"))
    fill(tmp_path / "kaggle" / "train")
    write(tmp_path / "kaggle" / "test" / "3.png", 3001)
    dataset = load(tmp_path / "kaggle")
    assert "test: 1 images without class folders are not used" in notes(dataset)
    assert sum(counts(dataset)) == 60


def test_classes_that_training_does_not_have_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test", 5, first=100, classes="cat Dog")
    assert "test: Dog: not among the classes of" in refusal(tmp_path)
    fill(tmp_path / "other" / "train")
    fill(tmp_path / "other" / "test", 5, first=100, classes="cat")
    assert counts(load(tmp_path / "other"))[2] == 5


def test_leftovers_of_systems_are_ignored_and_counted(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("._000.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "cat" / name).write_bytes(b"\0\5\x16\7")
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        write(tmp_path / name / "000-checkpoint.png", 5)
    dataset = load(tmp_path)
    assert dataset.contract.labels == ["cat", "dog"]
    assert sum(counts(dataset)) == 60
    assert "Ignored 7 hidden files and other leftovers" in notes(dataset)


def test_other_files_are_counted_by_their_suffix(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("a.HEIC", "b.heic", "c.svg", "notes"):
        (tmp_path / "dog" / name).write_bytes(b"x")
    said = notes(load(tmp_path))
    assert "Skipped 4 files that are not taken for images: .heic 2, .svg 1, no suffix 1" in said
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "x.heic").write_bytes(b"x")
    assert "owl: contains no image" in refusal(tmp_path)


def test_every_unreadable_image_is_in_one_message_and_can_be_skipped(tmp_path: Path) -> None:
    fill(tmp_path)
    for number in range(12):
        (tmp_path / "cat" / f"{number:03}.png").write_bytes(b"no image")
    (tmp_path / "dog" / "000.png").write_bytes(
        write(tmp_path / "dog" / "000.png", 1).read_bytes()[:60]
    )
    message = refusal(tmp_path)
    assert "13 of 60 images cannot be read (data.broken=skip leaves them out)" in message
    assert message.count("is not an image") == 10
    assert "… (13 in all)" in message
    dataset = load(tmp_path, broken="skip")
    assert sum(counts(dataset)) == 47
    assert "Skipped: 13 of 60 images cannot be read" in notes(dataset)


def test_image_in_two_classes_is_refused_or_dropped_with_both_files_named(tmp_path: Path) -> None:
    fill(tmp_path)
    shutil.copy(tmp_path / "cat" / "003.png", tmp_path / "dog" / "copy.png")
    message = refusal(tmp_path)
    assert re.search(r"dog/copy.png: is the same image as .*cat/003.png", message)
    assert "data.conflicts=drop" in message
    dataset = load(tmp_path, conflicts="drop")
    assert sum(counts(dataset)) == 59
    assert "Dropped 2 images that are in several classes" in notes(dataset)


def test_image_in_two_splits_leaves_training_or_is_refused(tmp_path: Path) -> None:
    for part, name in enumerate(("train", "val", "test")):
        fill(tmp_path / name, 10, first=100 * part)
    shutil.copy(tmp_path / "test" / "cat" / "000.png", tmp_path / "train" / "cat" / "a.png")
    shutil.copy(tmp_path / "test" / "cat" / "001.png", tmp_path / "val" / "cat" / "b.png")
    shutil.copy(tmp_path / "val" / "dog" / "001.png", tmp_path / "train" / "dog" / "c.png")
    dataset = load(tmp_path)
    assert counts(dataset) == [20, 20, 20]
    assert "3 images are in two splits" in notes(dataset)
    assert "3 copies were left out" in notes(dataset)
    assert counts(load(tmp_path, duplicates="keep")) == [22, 21, 20]
    message = refusal(tmp_path, duplicates="refuse")
    assert re.search(r"train/cat/a.png: is the same image as .*test/cat/000.png", message)


def test_test_split_that_repeats_training_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 10)
    message = refusal(tmp_path)
    assert "20 images are in two splits" in message
    assert "none would be left for training" in message


def test_images_that_are_all_alike_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(40):
            ink = Image.new("RGBA", (8, 8), (number, number, 9, 0))  # other bytes, equally clear
            ink.save(tmp_path / name / f"{name}-{number}.png")
    message = refusal(tmp_path)
    assert "all 80 images are alike" in message
    assert "data.background" in message


def test_class_whose_images_are_alike_is_refused_unless_kept(tmp_path: Path) -> None:
    fill(tmp_path, classes="cat")
    (tmp_path / "night").mkdir()
    for number in range(40):
        Image.new("RGB", (9 + number, 9)).save(tmp_path / "night" / f"{number}.png")
    assert re.search(r"alike in night \(.*0.png, .*png\); data.duplicates=keep", refusal(tmp_path))
    assert "all images are alike in night" in notes(load(tmp_path, duplicates="keep"))


def test_classes_of_a_single_image_are_refused_with_their_files(tmp_path: Path) -> None:
    fill(tmp_path)
    write(tmp_path / "owl" / "only.png", 7000)
    assert re.search(r"too few images: .*owl \(.*owl/only.png\)", refusal(tmp_path))


def test_twelve_bits_stored_in_sixteen_are_not_trained_on_as_black(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(20):
            rng = np.random.default_rng(len(name + str(number)) + number + 50 * (name == "dog"))
            image = rng.integers(0, 4096, (8, 8)).astype(np.uint16)
            Image.fromarray(image).save(tmp_path / name / f"{number}.tif")
    assert re.search(r"brightest level is 0\.06.*data.value_range=\[0,4095\]", refusal(tmp_path))
    dataset = load(tmp_path, value_range=(0, 4095))
    assert dataset.train["image"].max() > 0.95
    assert dataset.contract.value_range == (0, 4095)
    assert dataset.contract.color is False
    assert "40 of 40 images are of more than 8 bits" in notes(dataset)


def test_colour_is_kept_unless_all_files_are_grey_and_mixes_are_told(tmp_path: Path) -> None:
    fill(tmp_path)
    assert load(tmp_path).contract.color
    grey = load(tmp_path, color=False)
    assert grey.contract.channels == 1
    assert "60 of 60 images have colour and become grey levels" in notes(grey)
    for number in range(30):
        write(tmp_path / "cat" / f"{number:03}.png", number, "L")
    assert "Grey images among those in colour: cat 30 of 30, dog 0 of 30" in notes(load(tmp_path))
    for number in range(30):
        write(tmp_path / "dog" / f"{number:03}.png", 1000 + number, "L")
    assert not load(tmp_path).contract.color


def test_mixed_pictures_are_counted_by_what_was_done_to_them(tmp_path: Path) -> None:
    fill(tmp_path)
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "cat" / "x.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (8, 8), (9, 9, 9, 40)).save(tmp_path / "dog" / "y.png")
    said = notes(load(tmp_path, max_pixels=63))
    assert "1 of 62 images are animated or of several pages" in said
    assert "1 of 62 images are transparent and were put on data.background" in said
    assert "62 of 62 images are larger than data.max_pixels" in said


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path / "store")
    (tmp_path / "root").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "store" / "cat" / "again").symlink_to(tmp_path / "root")
    assert sum(counts(load(tmp_path / "root"))) == 60


def test_class_names_are_the_same_however_a_system_writes_accents(tmp_path: Path) -> None:
    fill(tmp_path / "train", classes="cafe\u0301 dog")
    fill(tmp_path / "test", 5, first=100, classes="caf\u00e9 dog")
    assert load(tmp_path).contract.labels == ["caf\u00e9", "dog"]


def test_size_takes_height_and_width(tmp_path: Path) -> None:
    dataset = load(fill(tmp_path), size=(6, 10), resize="pad")
    assert dataset.train["image"].shape[1:] == (3, 6, 10)
    assert (dataset.contract.size, dataset.contract.resize) == ((6, 10), "pad")
    for text, size in (("data.size=16", 16), ("data.size=[6,10]", (6, 10))):
        assert load_settings(Settings, None, ["name=x", text]).data.size == size


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("data.background=mauvish", "data.background=mauvish: unknown color"),
        ("data.background=#ffffff80", "data.background=#ffffff80: must be opaque"),
        ("data.value_range=[5,5]", "smaller value first"),
        ("data.resize=stretch", "data.resize=stretch: input should be 'squeeze', 'crop' or 'pad'"),
    ],
)
def test_unusable_settings_are_named(setting: str, expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        load_settings(Settings, None, ["name=x", setting])
