"""The base of every task's settings: training, and the loop of feedback, drift and retraining."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from .config import Variable
from .settings import DEFAULT_DATABASE, CoreSettings, PathSettings, Section


class LiveSettings(Section):
    """The prediction log, and the labelled requests taken from it."""

    database: Annotated[str, Variable("APP_DATABASE_URL")] = Field(
        default=DEFAULT_DATABASE, description="URL of the prediction log"
    )
    feedback: Path | None = Field(
        default=None, description="labelled requests added to the data; written by retrain"
    )
    set_aside: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="test-split fraction held out as traffic; 0: make loop chooses",
    )


class RetrainSettings(Section):
    """When to retrain, and how to test the new model."""

    new_labels: int = Field(default=1000, ge=1, description="retrain after this many new labels")
    quality_drop: float = Field(default=0.1, gt=0, description="retrain at this relative drop")
    max_days: float = Field(default=90, gt=0, description="retrain if the champion is older")
    least_labels: int = Field(
        default=100, ge=1, description="new labels needed to retrain for drift or lower quality"
    )
    validation_share: float = Field(
        default=0.15, gt=0, lt=0.5, description="fraction of the new labels used for validation"
    )
    test_share: float = Field(
        default=0.25, gt=0, lt=0.5, description="fraction of the new labels held out, the latest"
    )
    margin: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="fraction of its score that a new model may be worse; 0: it must be better",
    )
    old_loss: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="fraction lost on older data that a significant gain on production data buys",
    )
    newest_rows: int = Field(
        default=1000, ge=20, description="newest held-out requests that count as production data"
    )
    window_days: float | None = Field(
        default=None, gt=0, description="train only on labelled requests of so many last days"
    )
    production_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="least fraction of labelled requests in training: they are repeated, and "
        "original examples left out",
    )
    mode: Literal["split", "shadow"] = Field(
        default="split", description="split: the challenger answers callers; shadow: only listens"
    )
    share: float = Field(default=0.1, gt=0, le=1, description="of callers, or of shadowed requests")


class ABTestSettings(Section):
    """When the A/B test of a challenger is decided."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="error rate over the whole test")
    least_units: int = Field(default=50, ge=2, description="minimum labelled callers per variant")
    most_units: int | None = Field(
        default=None, ge=4, description="labelled callers after which an undecided test stops"
    )
    least_effect: float = Field(default=0.0, ge=0, description="smallest gain worth a promotion")


class LifecyclePathSettings(PathSettings):
    """Where to write, and where retraining keeps its labels."""

    feedback: Path = Field(
        default=Path("feedback"), description="labelled requests that retrain took from the log"
    )


class BaseSettings(CoreSettings):
    """What every task shares; a task adds its own sections in `task/settings.py`."""

    live: LiveSettings = LiveSettings()
    retrain: RetrainSettings = RetrainSettings()
    ab: ABTestSettings = ABTestSettings()
    paths: LifecyclePathSettings = LifecyclePathSettings()
