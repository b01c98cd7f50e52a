"""What the task and the rest of the project have agreed on: the names and types they both use.

Imported by the server, so nothing here needs torch to run.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict

from .config import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

Arrays = dict[str, np.ndarray]  # by name; the first axis counts the examples
Metrics = dict[str, float]
LabelledItem = tuple[Any, Any]  # an `Item` and the `Truth` that came to be known of it


class InvalidItem(ValueError):
    """Item number `index` of a request cannot be used: `field` says where, the message why."""

    def __init__(self, index: int, field: str, reason: str) -> None:
        super().__init__(reason)
        self.index, self.field = index, field


class MetricFormat(NamedTuple):
    """How a metric is written in tables: its value times `scale`, with `digits` decimals."""

    title: str
    scale: float
    digits: int


class ScoreMetric(NamedTuple):
    """What the score of one answer against its truth is called; a metric of `objective` by name."""

    name: str
    higher_is_better: bool


class BaseContract(BaseModel, ABC):
    """What must be known beside the network to use it; travels in the bundle as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    FILE: ClassVar[str] = "contract.json"
    TASK: ClassVar[str]
    SCORE: ClassVar[ScoreMetric]
    PREDICTION: ClassVar[type[BaseModel]]
    GROUND_TRUTH: ClassVar[type[BaseModel]]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the contract from a bundle's folder; ValueError when it is another's."""
        return cls.model_validate_json((folder / cls.FILE).read_bytes())

    def save(self, folder: Path) -> None:
        """Write the contract into a bundle's folder."""
        text = self.model_dump_json(indent=2)
        (folder / self.FILE).write_text(text + "\n", encoding="utf-8")

    @abstractmethod
    def score(self, prediction: Any, truth: Any) -> float:
        """Score one prediction by its ground truth; ValueError for an impossible one."""

    def score_json(self, prediction: Any, truth: Any) -> float:
        """Score decoded JSON, such as the prediction log holds; ValueError if it does not fit."""
        return self.score(
            self.PREDICTION.model_validate(prediction), self.GROUND_TRUTH.model_validate(truth)
        )


@dataclass(frozen=True)
class Splits(ABC):
    """Three parts of the data, each with the same arrays; `about` is a sentence for the report."""

    train: Arrays
    validation: Arrays
    test: Arrays
    about: str

    @property
    def filler(self) -> int:
        """What rows of the inputs are filled up with where they are shorter than others."""
        return 0

    @abstractmethod
    def encode_labelled(self, pairs: Sequence[LabelledItem]) -> Arrays:
        """Examples from outside with a split's arrays. Raises ValueError for unusable ones."""

    def holdout(self, share: float) -> tuple[Self, Arrays]:
        """The splits without the last `share` of the test rows, and these rows."""
        kept = round((1 - share) * len(next(iter(self.test.values()))))
        test = {name: array[:kept] for name, array in self.test.items()}
        rest = {name: array[kept:] for name, array in self.test.items()}
        return replace(self, test=test), rest

    def with_examples(self, fresh: Mapping[str, Sequence[LabelledItem]]) -> Self:
        """The splits with more examples at their ends; `fresh` has them by the split's name."""
        joined = {
            name: join_rows(getattr(self, name), self.encode_labelled(pairs), self.filler)
            for name, pairs in fresh.items()
            if pairs
        }
        return replace(self, **joined)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 that changes with any value, and with any example that changes its split."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for name, array in split.items():
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def join_rows(first: Arrays, second: Arrays, filler: int) -> Arrays:
    """The rows of both, those of shorter rows filled up."""
    whole = {}
    for name, array in first.items():
        parts = [array, second[name].astype(array.dtype)]
        shape = np.max([part.shape[1:] for part in parts], axis=0).astype(int)
        widths = [[(0, 0), *((0, n) for n in shape - part.shape[1:])] for part in parts]
        padded = [
            np.pad(part, width, constant_values=filler)
            for part, width in zip(parts, widths, strict=True)
        ]
        whole[name] = np.concatenate(padded)
    return whole


@dataclass(frozen=True)
class Stage:
    """One training from its first step to its last: all that the loop needs to know."""

    name: str
    train: TrainSettings
    data: Arrays  # what is learned from, a row per example
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, dict[str, Tensor]], Tensor]  # of a batch of `data`
    measure: Callable[[nn.Module], Metrics]  # on validation
    decides: str  # the metric by which epochs are compared
    higher_is_better: bool


@runtime_checkable
class Pretrains(Protocol):
    """A network may ask for a stage before its own; it then starts from the weights they share."""

    def pretraining(self, settings: Any, dataset: Any) -> Stage | None:
        """The stage to run first, or None."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A network may fit parts of itself before its first step, as buffers or first weights."""

    def prepare(self, train: Arrays, validation: Arrays) -> None:
        """Fit to `train`; `validation` is there to choose by."""
        ...


@runtime_checkable
class Calibrates(Protocol):
    """A network may adjust itself, once trained, by what it answers on validation."""

    def calibrate(self, outputs: Arrays, split: Arrays) -> None:
        """Change buffers so that the answers on unseen data are as sure as they should be."""
        ...


@runtime_checkable
class Diagnoses(Protocol):
    """A network may be asked more than the test split: data of another kind, why it answers so."""

    def diagnose(self, dataset: Any) -> dict[str, Any]:
        """What to add to the `details` of an evaluation; tables are printed and reported."""
        ...
