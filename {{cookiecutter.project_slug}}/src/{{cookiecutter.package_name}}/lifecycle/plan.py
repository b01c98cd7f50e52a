"""What a retraining under way has set out to do, so that one that was killed is gone on with."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..config import UserError
from ..files import write_text
from ..task.settings import Settings

MARKER = ".retrain.json"


class PendingRetrain(BaseModel):
    """Stands in `runs/` from the decision until the challenger is deployed or refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str  # its folder in `runs/`
    feedback: Path | None  # the labelled requests that it learns from
    reason: str


def read_pending(settings: Settings) -> PendingRetrain | None:
    """The plan that was not finished, if there is one; without its data there was hardly a plan."""
    path = settings.paths.runs / MARKER
    try:
        found = PendingRetrain.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: is no plan of a retraining, remove it: {reason}") from None
    return found if found.feedback is None or found.feedback.exists() else None


def write_pending(settings: Settings, plan: PendingRetrain) -> None:
    """Remember what is to be done."""
    write_text(settings.paths.runs / MARKER, plan.model_dump_json(indent=2) + "\n")


def clear_pending(settings: Settings) -> None:
    """Forget it, done or given up."""
    (settings.paths.runs / MARKER).unlink(missing_ok=True)
