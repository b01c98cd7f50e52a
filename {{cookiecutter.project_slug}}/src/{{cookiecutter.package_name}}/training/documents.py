"""The JSON documents in a run's folder, as types: `run.json` and `evaluation.json`."""

from typing import Any

from pydantic import Field

from ..bundle.manifest import GitState
from ..files import Document
from ..interfaces import Metrics

Interval = tuple[float, float]  # its two ends


class RowCounts(Document):
    """Examples in each split."""

    train: int
    validation: int
    test: int

    @property
    def total(self) -> int:
        return self.train + self.validation + self.test


class DataInfo(Document):
    """The data of a run."""

    about: str  # a paragraph for the report: what it is, its source and licence
    fingerprint: str  # SHA-256
    rows: RowCounts
    notes: tuple[str, ...] = ()  # what loading changed
    limits: tuple[str, ...] = ()  # of this data alone, for the model card


class RunInfo(Document):
    """`run.json`: settings, data, code and hardware of a run."""

    settings: dict[str, Any]  # as they were written; today's code validates them again
    data: DataInfo
    git: GitState
    hardware: str
    versions: dict[str, str]  # of the libraries that decide the numbers
    command: str
    started: str  # ISO 8601, UTC
    question: str = ""  # the person's words, for the experiment's page
    hypothesis: str = ""


class NetworkResult(Document):
    """Test metrics of the trained networks."""

    seeds: dict[int, Metrics]
    mean: Metrics  # over seeds
    sd: Metrics | None  # over seeds; None for a single one
    interval: Interval  # 95 %, of the primary metric


class BaselineResult(Document):
    """Test metrics of a baseline, and the network's lead over it."""

    metrics: Metrics
    interval: Interval  # 95 %, of the primary metric
    ahead: float  # the lead in the primary metric; positive where the network is better
    ahead_interval: Interval  # those of all baselines hold together at 95 %

    @property
    def verdict(self) -> str:
        """The claim that the interval allows: a lead only where it excludes zero."""
        low, high = self.ahead_interval
        return "ahead" if low > 0 else "behind" if high < 0 else "not distinguishable"


class Costs(Document):
    """What a network costs in PyTorch on the machine of the evaluation."""

    parameters: int
    weights_bytes: int
    item_ms: float  # a single example
    batch_ms: float  # `batch_rows` examples at once
    batch_rows: int
    peak_memory_bytes: int | None = None  # of the evaluation's process; not known on Windows


class Evaluation(Document):
    """`evaluation.json`: the networks and the baselines on the test split."""

    run: str
    metric: str  # the primary one
    higher_is_better: bool
    model: str  # a sentence for the report
    rows: RowCounts
    network: NetworkResult
    baselines: dict[str, BaselineResult]
    chosen_seed: int  # best on validation; the one to deploy
    details: dict[str, Any]  # the task's own; a dict of dicts is a table
    train_seconds: float
    seconds: float  # of the evaluation
    advice: dict[str, str] = Field(default={})  # settings to try and why, if a baseline is better
    # Networks with a part switched off ("network alone"), compared as the baselines are.
    ablations: dict[str, BaselineResult] = Field(default={})
    costs: Costs | None = None  # None: evaluated before they were measured

    def best_baseline(self) -> tuple[str, BaselineResult]:
        """Return name and result of the best baseline by the primary metric."""
        sign = 1 if self.higher_is_better else -1
        return max(self.baselines.items(), key=lambda item: sign * item[1].metrics[self.metric])
