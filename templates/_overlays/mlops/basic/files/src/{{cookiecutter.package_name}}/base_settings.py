"""The base of every task's settings."""

from .settings import CoreSettings, PathSettings


class BaseSettings(CoreSettings):
    """What every task shares; a task adds its own sections in `task/settings.py`."""

    paths: PathSettings = PathSettings()
