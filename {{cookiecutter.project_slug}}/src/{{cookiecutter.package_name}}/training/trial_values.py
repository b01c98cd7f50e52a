"""Values of the searched settings, for a trial."""

from collections.abc import Mapping
from typing import Any

from optuna import Trial

from ..config import Search, flatten
from ..task.settings import Settings

Space = Mapping[str, Search]  # by `section.key`


def suggest(trial: Trial, settings: Settings, space: Space) -> dict[str, Any]:
    """Draw a value of each searched setting for a trial, as the printed command has it."""
    current, values = _values(settings), {}
    for key, search in space.items():
        if search.choices:
            values[key] = trial.suggest_categorical(key, search.choices)
        elif isinstance(current[key], int):
            low, high = map(int, ends(settings, key, search))
            values[key] = trial.suggest_int(key, low, high, log=search.log)
        else:
            values[key] = trial.suggest_float(key, search.low, search.high, log=search.log)
        if isinstance(values[key], float):
            values[key] = float(rounded(values[key]))
    return values


def values_inside(settings: Settings, space: Space) -> dict[str, Any]:
    """Return the settings' values, as far as they are among those that the space tries."""
    current = _values(settings)
    return {
        key: current[key]
        for key, search in space.items()
        if current[key] in search.choices
        or (current[key] is not None and search.low <= current[key] <= search.high)
    }


def ends(settings: Settings, key: str, search: Search) -> tuple[float, float]:
    """Return the lowest and the highest value of a range, in the setting's type."""
    is_whole = isinstance(_values(settings)[key], int)
    return (int(search.low), int(search.high)) if is_whole else (search.low, search.high)


def rounded(value: Any) -> Any:
    """Round a float to four digits: no result depends on more, and people have to read it."""
    return f"{value:.4g}" if isinstance(value, float) else value


def _values(settings: Settings) -> dict[str, Any]:
    """Return the value of every setting by `section.key`."""
    values = {}
    for key in flatten(settings):
        value: Any = settings
        for name in key.split("."):
            value = value[name] if isinstance(value, dict) else getattr(value, name)
        values[key] = value
    return values
