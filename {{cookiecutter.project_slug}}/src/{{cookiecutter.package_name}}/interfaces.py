"""Everything that the core asks of a task pack, the package `task/`.

Its modules implement the Protocols `DataModule` … `InspectModule`; `make check` names a missing
member (`tests/test_interfaces.py`). `Pretrains`, `Prepares`, `Calibrates`, `Ablates` and
`Diagnoses` are optional methods of the network that `model.build` returns.

The server imports this module, so nothing here may need torch at run time.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    runtime_checkable,
)

import numpy as np
from pydantic import BaseModel, ConfigDict

from .arrays import Arrays, in_chunks, join_rows, row_count, select_rows
from .settings import TrainSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

Metrics = dict[str, float]
LabelledItem = tuple[Any, Any]  # an `Item` and its `GroundTruth`


class InvalidItem(ValueError):
    """Reject `field` of item number `index` of a request."""

    def __init__(self, index: int, field: str, reason: str) -> None:
        super().__init__(reason)
        self.index, self.field = index, field


class MetricFormat(NamedTuple):
    """What a metric is, and how tables print it: its value times `scale`, `digits` decimals."""

    title: str
    scale: float
    digits: int
    meaning: str  # the exact definition, as in "Accuracy: share of …"


class ScoreMetric(NamedTuple):
    """The name of a metric, and which of its values are better."""

    name: str
    higher_is_better: bool


class BaseContract(BaseModel, ABC):
    """Everything but the network that inference needs; the bundle holds it as JSON.

    Training and the server encode with the same object, which must not need torch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    FILE: ClassVar[str] = "contract.json"
    TASK: ClassVar[str]
    SCORE: ClassVar[ScoreMetric]  # the mean of `score`; one of `objective.METRICS`
    PREDICTION: ClassVar[type[BaseModel]]
    GROUND_TRUTH: ClassVar[type[BaseModel]]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the contract from a bundle's folder; ValueError if it belongs to another task."""
        return cls.model_validate_json((folder / cls.FILE).read_bytes())

    def save(self, folder: Path) -> None:
        """Write the contract into a bundle's folder."""
        (folder / self.FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @abstractmethod
    def encode(self, items: list[Any]) -> Arrays:
        """Encode `Item`s as the network's inputs, a row each. Raises InvalidItem."""

    def encoding_seconds(self, item: Any) -> float:
        """Estimate how much longer `encode` needs for this item than for an ordinary one, seconds.

        Called in the server's event loop, so it must be quick and never raise.
        """
        return 0.0

    @abstractmethod
    def decode(self, outputs: Arrays, items: Sequence[Any]) -> Sequence[Any]:
        """Decode the network's outputs into one `Prediction` per item."""

    def encode_columns(self, columns: Arrays) -> tuple[Arrays, np.ndarray] | None:
        """Encode numbers (row, …) by the name of the `Item`'s field, for scoring files fast.

        Returns the inputs of the valid rows and which rows these are, bool (row,); None, the
        default, if these columns need an `Item` per row.
        """
        return None

    def decode_columns(self, outputs: Arrays) -> dict[str, Any]:
        """Decode outputs for what `encode_columns` encoded, as `decode` does: a column (row,) per
        field of `Prediction`, or if the field is a dict, a column per key."""
        raise TypeError(f"{type(self).__name__} encodes columns, but does not decode them")

    @abstractmethod
    def score(self, prediction: Any, ground_truth: Any) -> float:
        """Score a `Prediction` by its `GroundTruth`; ValueError for an impossible one."""

    def score_json(self, prediction: Any, truth: Any) -> float:
        """Score decoded JSON, as in the prediction log. Raises ValueError if it is invalid."""
        ground_truth = self.GROUND_TRUTH.model_validate(truth)
        return self.score(self.PREDICTION.model_validate(prediction), ground_truth)

    @abstractmethod
    def features(self, inputs: Arrays) -> Arrays:
        """Reduce inputs to the few values (item,) that drift is measured on."""

    @abstractmethod
    def prediction_stats(self, outputs: Arrays) -> Arrays:
        """Reduce outputs to the few values (item,) that drift is measured on."""


@dataclass(frozen=True)
class Splits(ABC):
    """The data set: three splits with the same arrays."""

    train: Arrays
    validation: Arrays
    test: Arrays
    about: str  # what data this is, its source and licence; a paragraph of the report
    contract: BaseContract
    # Sentences: what loading changed, filled, skipped or ignored, with counts.
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    # Sentences for the model card that hold for this source of data alone.
    limits: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def pad_value(self) -> int:
        """What pads the shorter rows of inputs of variable length."""
        return 0

    @abstractmethod
    def example(self) -> dict[str, Any]:
        """Build a request's item (JSON) from the first test row."""

    @abstractmethod
    def encode_labelled(self, pairs: Sequence[LabelledItem]) -> Arrays:
        """Encode labelled items as rows of a split. Raises ValueError for unusable ones."""

    def holdout(self, share: float) -> tuple[Self, Arrays]:
        """Split the last `share` of the test rows off; return the other splits and these rows."""
        rows = np.arange(row_count(self.test))
        kept, held_out = np.split(rows, [round((1 - share) * len(rows))])
        test = select_rows(self.test, kept)
        return replace(self, test=test), select_rows(self.test, held_out)

    def keep_rows(self, rows: Mapping[str, np.ndarray]) -> Self:
        """Keep only these rows (n,) of the splits that are named."""
        kept = {name: select_rows(getattr(self, name), chosen) for name, chosen in rows.items()}
        return replace(self, **kept)

    def with_examples(self, new: Mapping[str, Sequence[LabelledItem]]) -> Self:
        """Append labelled items to the splits; `new` holds them by the split's name."""
        joined = {
            name: join_rows(getattr(self, name), self.encode_labelled(pairs), self.pad_value)
            for name, pairs in new.items()
            if pairs
        }
        return replace(self, **joined)

    def test_clusters(self) -> np.ndarray | None:
        """Number the groups (n,) of test rows that resemble each other, such as one author's.

        Intervals then count groups, not rows; None: BLOCK_LENGTH neighbours are a group.
        """
        return None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all splits: changes with any value and with any row that moves."""
        checksum = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for name, array in split.items():
                checksum.update(f"{name} {array.dtype} {array.shape}".encode())
                for chunk in in_chunks({name: array}):
                    checksum.update(np.ascontiguousarray(chunk[name]).tobytes())
        return checksum.hexdigest()


class DataModule(Protocol):
    """`task/data.py`: load the data of `settings.data`. Raises UserError with one line."""

    def load(self, settings: Any) -> Splits: ...

    def folds(self, settings: Any, count: int) -> list[Any]:
        """Return `settings.data` of each of `count` folds of a cross-validation, as the task needs
        them: no row tests twice, none that belongs to a test row or comes after it trains.
        """
        ...


class ModelModule(Protocol):
    """`task/model.py`: the network. Its `forward` takes `INPUTS` and returns `OUTPUTS`."""

    def build(self, settings: Any, contract: Any) -> nn.Module:
        """Build a network with random weights from torch's global generator."""
        ...

    def describe(self, network: nn.Module) -> str:
        """Describe the network in one sentence for the report."""
        ...


class ObjectiveModule(Protocol):
    """`task/objective.py`: what training minimises and how results are measured.

    `outputs` are the network's, `split` is the measured split, both with n rows.
    """

    PRIMARY_METRIC: Final[str]  # compares models, and by default epochs and seeds
    HIGHER_IS_BETTER: Final[bool]
    # What `metrics` returns of stated probabilities, smoother than the primary metric and best for
    # true ones; a task without such a metric names the primary one.
    PROPER_SCORE: Final[ScoreMetric]
    METRICS: Final[Mapping[str, MetricFormat]]  # in the order of the tables
    BLOCK_LENGTH: Final[int]  # neighbouring test rows that resemble each other

    def loss(self, settings: Any, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Compute the scalar loss of a training batch, augmentation included."""
        ...

    def metrics(self, outputs: Arrays, split: Arrays, contract: Any) -> Metrics:
        """Compute all metrics of a split."""
        ...

    def scores(self, outputs: Arrays, split: Arrays) -> np.ndarray:
        """Score examples (n,), or groups of them; their mean is `PRIMARY_METRIC`."""
        ...

    def slice_scores(self, outputs: Arrays, split: Arrays) -> np.ndarray:
        """Score the same rows as `scores` so that a mean over any subset is meaningful."""
        ...

    def slices(self, split: Arrays, contract: Any) -> dict[str, np.ndarray]:
        """Select named subsets of these rows, bool (n,), that no new model may be worse on."""
        ...

    def details(self, outputs: Arrays, split: Arrays, contract: Any) -> dict[str, Any]:
        """Compute the tables behind the metrics, JSON, for the report and the figures.

        Those whose name begins with `errors_` are on the experiment's page too.
        """
        ...


class BaselineModule(Protocol):
    """`task/baseline.py`: simple models that the network has to beat."""

    def names(self) -> list[str]:
        """Name the baselines before they are fitted."""
        ...

    def fit_and_predict(self, dataset: Any) -> Iterator[tuple[str, Arrays]]:
        """Fit each baseline; yield its name and its outputs on the test split."""
        ...

    def advice(self, settings: Any) -> dict[str, str]:
        """Return settings (`key=value`) that may help a network behind a baseline, with why."""
        ...


class ContractModule(Protocol):
    """`task/contract.py`: requests, predictions and the way between them and the network."""

    INPUTS: Final[Mapping[str, Mapping[int, str]]]  # in `forward`'s order; names of variable axes
    OUTPUTS: Final[tuple[str, ...]]
    SCORE: Final[ScoreMetric]
    Item: Final[type[BaseModel]]  # one item of a request
    Prediction: Final[type[BaseModel]]  # for one item
    GroundTruth: Final[type[BaseModel]]  # what turned out to be right about one item
    Contract: Final[type[BaseContract]]  # what the bundle keeps beside the network

    def item_from_file(self, path: Path) -> dict[str, Any]: ...


class FiguresModule(Protocol):
    """`task/figures.py`: plots of the chosen network, as (file name, caption, figure)."""

    def plot_results(
        self, dataset: Any, outputs: Arrays, details: dict[str, Any]
    ) -> Iterator[tuple[str, str, Figure]]: ...


class SimulateModule(Protocol):
    """`task/simulate.py`: labelled requests for `make loop`, made of held-out test rows.

    No shifted request shares data with a normal one; both come in the order of sending.
    """

    SHIFT_DESCRIPTION: Final[str]  # a sentence: what changes in the simulated world
    MORE_TRAFFIC: Final[str]  # the settings that give the loop more test rows to hold out

    def normal_requests(self, dataset: Any, held_out: Arrays, settings: Any) -> list[LabelledItem]:
        """Return items like those of training."""
        ...

    def shifted_requests(self, dataset: Any, held_out: Arrays, settings: Any) -> list[LabelledItem]:
        """Return items after the shift."""
        ...


@dataclass(frozen=True)
class Stage:
    """One training, with everything that the training loop needs."""

    name: str
    train: TrainSettings
    data: Arrays  # the training examples, a row each
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, dict[str, Tensor]], Tensor]  # of a batch of `data`
    measure: Callable[[nn.Module], Metrics]  # on validation
    primary_metric: str  # the metric by which epochs are compared
    higher_is_better: bool


@runtime_checkable
class Pretrains(Protocol):
    """A network that is pre-trained first and then starts from the weights of that stage."""

    def pretraining(self, settings: Any, dataset: Any) -> Stage | None: ...


@runtime_checkable
class Prepares(Protocol):
    """A network that fits buffers or initial weights before the first step."""

    def prepare(self, train: Arrays, validation: Arrays) -> None: ...


@runtime_checkable
class Calibrates(Protocol):
    """A network whose stated uncertainty is matched to the errors on validation after training."""

    def calibrate(self, outputs: Arrays, split: Arrays) -> None: ...


@runtime_checkable
class Ablates(Protocol):
    """A network that can be measured with a part of it switched off, to show what the part adds."""

    def ablations(self) -> Mapping[str, nn.Module]: ...  # by name, such as "network alone"


@runtime_checkable
class Diagnoses(Protocol):
    """A network with more tables for an evaluation's `details`, such as out-of-domain data."""

    def diagnose(self, dataset: Any) -> dict[str, Any]: ...


class Finding(NamedTuple):
    """What looks wrong with the data, in a sentence; an error would make training pointless."""

    level: Literal["error", "warning"]
    text: str


@dataclass(frozen=True)
class Inspection:
    """What there is to know about the data before training."""

    tables: dict[str, list[list[str]]]  # by title; the first row is the header
    findings: list[Finding]
    plot: Callable[[], Figure]  # called only if the figure is wanted


class InspectModule(Protocol):
    """`task/inspection.py`: what is special about the data of this task."""

    EXAMPLE: Final[tuple[str, ...]]  # columns that are equal in copies of an example; () for none
    ANSWER: Final[str | None]  # a column in which copies must be equal too

    def inspect(self, dataset: Any, settings: Any) -> Inspection: ...
