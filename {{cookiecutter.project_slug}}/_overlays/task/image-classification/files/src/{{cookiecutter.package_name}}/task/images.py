"""Decode the images of many files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import pixels
from .pixels import ImageSpec
from .settings import DataSettings


class LoadedImages(NamedTuple):
    """The readable images of a list of files, a row each, in the order of the list."""

    pixels: np.ndarray  # float32 (image, channel, row, column) in 0..1
    files: list[Path]
    digests: list[str]  # SHA-256 of the files
    facts: list[frozenset[str]]  # keys of `pixels.FACTS`
    problems: list[str]  # of the other files: "FILE: why"


def load_images(files: Sequence[Path], spec: ImageSpec, settings: DataSettings) -> LoadedImages:
    """Decode the files one by one."""
    loaded = LoadedImages(np.empty(0), [], [], [], [])
    images = []
    for file in files:
        try:
            picture = pixels.read_picture(file, spec)
        except ValueError as error:
            loaded.problems.append(f"{file}: {error}")
            continue
        images.append(picture.levels)
        loaded.files.append(file)
        loaded.digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
        loaded.facts.append(picture.facts)
    shape = (0, 3 if spec.color else 1, *spec.size)
    levels = np.stack(images) if images else np.empty(shape, np.uint8)
    return loaded._replace(pixels=levels.astype(np.float32) / 255)
