"""The settings that every project needs: how to train, where to write."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_serializer

from .config import Search, Variable

DEFAULT_DATABASE = "sqlite:///predictions.db"


class Section(BaseModel):
    """A group of settings: unknown keys are rejected, values cannot change after loading."""

    # Built when it is first used: most commands need few of them.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    @field_serializer("*", mode="wrap", when_used="json", check_fields=False)
    def _relative_paths(self, value: Any, serialize: Callable[[Any], Any]) -> Any:
        """Store a path inside the project relative to it: a run must not break when it moves."""
        if isinstance(value, Path) and value.is_relative_to(Path.cwd()):
            value = value.relative_to(Path.cwd())
        return serialize(value)


def setting(default: Any, text: str, **limits: Any) -> Any:
    """Declare a setting with its default, its help text and the limits of pydantic's Field."""
    return Field(default=default, description=text, **limits)


def _store_url(url: Any) -> Any:
    if isinstance(url, str) and urlsplit(url).password is not None:
        raise ValueError(
            "give the password to the store's library, not in the URL, which is shown in messages"
        )
    return None if url in ("", "null") else url  # an empty variable is as good as none


StoreUrl = Annotated[str | None, BeforeValidator(_store_url)]


# A duplicate would count one run twice in the spread over seeds.
def _without_duplicates(seeds: Any) -> Any:
    if isinstance(seeds, list):
        for seed in seeds:
            if sum(str(seed) == str(other) for other in seeds) > 1:
                raise ValueError(f"seeds must be unique; duplicate {seed}")
    return seeds


Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], BeforeValidator(_without_duplicates)]


class TrainSettings(Section):
    """How to train the network; the same for every task."""

    seeds: Seeds = Field(default=[0, 1, 2], min_length=1, description="one network per seed")
    epochs: int = Field(default=40, ge=1, description="maximum passes over the training split")
    batch_size: Annotated[int, Search(choices=(32, 64, 128))] = Field(
        default=64, ge=1, description="examples per step, of all parts and all processes together"
    )
    accumulate: int = Field(
        default=1, ge=1, description="parts that a step's examples go through the network in"
    )
    optimizer: Literal["adamw", "nadam", "sgd"] = Field(
        default="adamw", description="adamw, nadam, or sgd (Nesterov, 0.9; needs a larger lr)"
    )
    lr: Annotated[float, Search(5e-4, 2e-2, log=True)] = Field(
        default=4e-3, gt=0, le=10, description="peak of the learning rate"
    )
    schedule: Literal["one-cycle", "cosine", "constant"] = Field(
        default="one-cycle", description="one-cycle, cosine or constant: the lr after its peak"
    )
    warmup: float = Field(default=0.25, ge=0, lt=1, description="fraction of steps before the peak")
    weight_decay: Annotated[float, Search(1e-4, 1e-1, log=True)] = Field(
        default=1e-2, ge=0, description="weight decay, decoupled from the gradient but for sgd"
    )
    no_decay: bool = Field(
        default=False, description="leave biases, norms and embeddings out of weight_decay"
    )
    clip_norm: float = Field(default=1.0, gt=0, description="maximum L2 norm of the gradient")
    patience: int = Field(default=15, ge=1, description="epochs without improvement before a stop")
    choose_epoch: Literal["metric", "proper", "last"] = Field(
        default="metric",
        description="weights to keep: metric, proper: of the epoch with the best primary metric or "
        "proper score (log loss …) on validation; last: of the last, without an early stop",
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay per step of the average of the weights that is measured and kept, such "
        "as 0.999; 0: no average",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="float32, or mixed with bfloat16 or (GPU only) float16"
    )
    compile: bool = Field(default=False, description="compile the network with torch.compile")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="where to compute; auto: CUDA if available, else CPU"
    )


class PathSettings(Section):
    """Where to write, relative to the project's folder."""

    runs: Path = Field(default=Path("runs"), description="one folder per training run")
    deployment: Annotated[Path, Variable("APP_DEPLOYMENT_DIR")] = Field(
        default=Path("deployment"), description="what the server reads"
    )
    experiments: Path = Field(
        default=Path("docs/experiments"), description="figures and the list of experiments"
    )
    tracking: str = Field(
        default="sqlite:///mlflow.db",
        description="MLflow tracking URI; MLFLOW_TRACKING_URI takes precedence",
    )
    studies: Annotated[str, Variable("APP_STUDIES_URL")] = Field(
        default="sqlite:///studies.db",
        description="database of tune's trials; several workers share it",
    )
    publish_to: Annotated[StoreUrl, Variable("APP_PUBLISH_TO")] = Field(
        default=None,
        description="directory or URL of fsspec that each change of the deployment is published to",
    )
    keep_bundles: Annotated[int | None, Variable("APP_KEEP_BUNDLES")] = Field(
        default=None,
        ge=0,
        description="bundles to keep, there and here, that deployment.json no longer names; null: "
        "all",
    )


class CoreSettings(Section):
    """What every project needs; `BaseSettings` adds the paths and the rest."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=64,
        description="name of the experiment and of the registered model",
    )
    train: TrainSettings = TrainSettings()
