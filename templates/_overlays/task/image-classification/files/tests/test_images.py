"""Many images: decoded once, read from disk in training, the same numbers as from memory."""

import json
import os
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.arrays import LazyArray
from {{ cookiecutter.package_name }}.config import UserError, WorkError, load_settings
from {{ cookiecutter.package_name }}.task import baseline, data, images, pixels
from {{ cookiecutter.package_name }}.task.contract import GroundTruth, Item
from {{ cookiecutter.package_name }}.task.pixels import ImageSpec
from {{ cookiecutter.package_name }}.task.settings import DataSettings, Settings
from {{ cookiecutter.package_name }}.training import fit

from .conftest import kill_in_training

SPEC = ImageSpec((8, 8), True, "squeeze", "white", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of forty images in two classes, one darker than the other."""
    rng = np.random.default_rng(0)
    for label, high in (("dark", 120), ("light", 256)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(20):
            levels = rng.integers(0, high, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(levels).save(tmp_path / "images" / label / f"{number:02}.png")
    return tmp_path / "images"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded."""
    names: list[str] = []
    read = pixels.read_picture

    def noting(file: Path, *arguments: object) -> pixels.Picture:
        names.append(file.name)
        return read(file, *arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(pixels, "read_picture", noting)
    return names


def settings(folder: Path, **changes: object) -> DataSettings:
    """Settings that read a folder's images from disk."""
    values = {"size": 8, "color": True, "memory_mb": 0, "cache": folder.parent / "cache", **changes}
    return DataSettings(source="folder", path=folder, **values)  # pyright: ignore


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def test_images_on_disk_are_the_same_as_in_memory(folder: Path) -> None:
    on_disk, in_memory = data.load(settings(folder)), data.load(settings(folder, memory_mb=1))
    lazy, array = on_disk.train["image"], in_memory.train["image"]
    assert isinstance(lazy, LazyArray)
    assert isinstance(array, np.ndarray)
    assert (lazy.shape, lazy.dtype) == (array.shape, array.dtype)
    for rows in (3, -1, slice(2, 9), np.array([5, 1, 5]), np.array([], int)):
        np.testing.assert_array_equal(lazy[rows], array[rows])
    np.testing.assert_array_equal(lazy.take(np.array([4, 2]))[:], array[[4, 2]])
    assert on_disk.fingerprint == in_memory.fingerprint
    assert on_disk.example() == in_memory.example()
    for kept, expected in zip(on_disk.holdout(0.5), in_memory.holdout(0.5), strict=True):
        test = kept if isinstance(kept, dict) else kept.test
        other = expected if isinstance(expected, dict) else expected.test
        np.testing.assert_array_equal(test["image"][:], other["image"])


def test_labelled_requests_are_added_to_images_on_disk(folder: Path) -> None:
    dataset = data.load(settings(folder))
    pair = Item.model_validate(dataset.example()), GroundTruth(label="light")
    more = dataset.with_examples({"train": [pair]})
    assert isinstance(more.train["image"], LazyArray)
    np.testing.assert_array_equal(more.train["image"][-1], dataset.test["image"][0])
    assert more.fingerprint != dataset.fingerprint


def test_only_new_and_changed_files_are_decoded_again(folder: Path, decoded: list[str]) -> None:
    data.load(settings(folder))
    assert len(decoded) == 40
    decoded.clear()
    before = data.load(settings(folder))
    assert decoded == []
    changed, new = folder / "dark" / "03.png", folder / "light" / "new.png"
    for path in (changed, new):
        Image.new("RGB", (10, 12), (len(path.name), 7, 9)).save(path)
    after = data.load(settings(folder))
    assert sorted(decoded) == ["03.png", "new.png"]
    assert after.fingerprint != before.fingerprint
    decoded.clear()
    data.load(settings(folder, size=9))
    assert len(decoded) == 41, "another size is another image"


def test_file_replaced_with_its_size_and_time_kept_is_decoded_again(
    folder: Path, decoded: list[str]
) -> None:
    """Archives and copies set the time of the last change of the content."""
    path = folder / "dark" / "03.png"
    time_kept = path.stat().st_mtime_ns
    data.load(settings(folder))
    time.sleep(0.05)  # file systems note times in steps of some milliseconds
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(time_kept, time_kept))
    decoded.clear()
    data.load(settings(folder))
    assert decoded == ["03.png"]


def test_interrupted_decoding_continues_where_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setattr(images, "CHUNK", 8)
    read = pixels.read_picture

    def interrupted(file: Path, spec: ImageSpec) -> pixels.Picture:
        if file.name == "13.png":
            raise KeyboardInterrupt
        return read(file, spec)

    with monkeypatch.context() as patch:
        patch.setattr(pixels, "read_picture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            images.load_images(files(folder), SPEC, settings(folder))
    decoded.clear()
    images.load_images(files(folder), SPEC, settings(folder))
    assert len(decoded) == 32, "eight images were committed before"


@pytest.mark.parametrize("memory_mb", [0, 1])
def test_unreadable_files_are_all_reported_and_the_others_loaded(
    folder: Path, memory_mb: int
) -> None:
    paths = [*files(folder), folder / "gone.png"]
    paths[3].write_bytes(b"no image")
    paths[7].write_bytes(paths[7].read_bytes()[:60])
    loaded = images.load_images(paths, SPEC, settings(folder, memory_mb=memory_mb))
    assert [problem.split(": ")[0] for problem in loaded.problems] == [
        str(paths[place]) for place in (3, 7, -1)
    ]
    assert loaded.files == [path for path in paths if path not in (paths[3], paths[7], paths[-1])]
    assert len(loaded.pixels) == len(loaded.digests) == len(loaded.facts) == 38
    expected = pixels.read_picture(loaded.files[-1], SPEC).levels / np.float32(255)
    np.testing.assert_array_equal(loaded.pixels[37], expected)


def test_few_images_leave_nothing_on_disk(folder: Path) -> None:
    data.load(settings(folder, memory_mb=1))
    assert not (folder.parent / "cache").exists()


def test_many_files_are_kept_decoded_although_they_fit_into_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(images, "UNCACHED_FILES", 39)
    assert isinstance(data.load(settings(folder, memory_mb=1)).train["image"], np.ndarray)
    assert "decoding 40 of 40, once; kept in " in capsys.readouterr().err
    data.load(settings(folder, memory_mb=1))
    assert "40 decoded before" in capsys.readouterr().err
    data.load(settings(folder, memory_mb=1, cache=None))
    assert capsys.readouterr().err == ""


def test_too_many_images_without_a_cache_are_refused_with_the_settings(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"40 images of 8 × 8 .* data\.memory_mb=0; set data\.cache"
    ):
        data.load(settings(folder, cache=None))


def test_cache_that_cannot_be_written_is_named_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "file").write_text("")
    with pytest.raises(WorkError, match=r"file/images-8x8-rgb-.*: .* set data\.cache"):
        data.load(settings(folder, cache=folder.parent / "file"))
    connect = sqlite3.connect

    def small_disk(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = connect(*arguments, **options)  # pyright: ignore
        connection.execute("pragma max_page_count = 5")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", small_disk)
        with pytest.raises(WorkError, match="database or disk is full; free space") as caught:
            data.load(settings(folder))
    assert "\n" not in str(caught.value)
    assert len(data.load(settings(folder)).train["image"]) > 0, "with space it goes on"


def test_damaged_cache_is_named(folder: Path) -> None:
    data.load(settings(folder))
    (cache,) = (folder.parent / "cache").iterdir()
    cache.write_bytes(b"something else entirely, and long enough" * 100)
    with pytest.raises(WorkError, match=f"{cache.name}: .*not a database; .* delete this file"):
        data.load(settings(folder))


def test_killed_run_resumes_to_bit_identical_weights_from_images_on_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    sections = {
        "name": "kill",
        "data": json.loads(settings(folder).model_dump_json()),
        "model": {"width": 4},
        "train": {"seeds": [0], "epochs": 5, "batch_size": 4, "device": "cpu"},
    }
    config.write_text(json.dumps(sections))
    kill_in_training(tmp_path, "train", "--config", str(config))
    (history,) = tmp_path.glob("runs/*/seed-0/history.json")
    assert json.loads(history.read_text())["epoch"] == 2

    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--config", str(config), "--resume"]) == 0
    loaded = load_settings(Settings, config, [], {})
    in_memory = loaded.data.model_copy(update={"memory_mb": 1})
    fit.fit(fit.training_stage(loaded, data.load(in_memory)), 0, tmp_path / "whole")
    for name in ("last.safetensors", "best.safetensors"):
        resumed, whole = load_file(history.parent / name), load_file(tmp_path / "whole" / name)
        assert resumed.keys() == whole.keys()
        for key, values in whole.items():
            np.testing.assert_array_equal(resumed[key], values)


def test_baselines_of_large_data_say_what_they_do_not_see(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = data.load(settings(folder, size=40))
    assert {name for name, _ in baseline.fit_and_predict(dataset)} == {
        f"{name}, 13 × 13 pixels" for name in baseline.names()
    }
    monkeypatch.setattr(baseline, "MAX_IMAGES", 16)
    for name, outputs in baseline.fit_and_predict(data.load(settings(folder))):
        assert name.endswith(", 16 images")
        assert len(outputs["label"]) == len(dataset.test["label"])
