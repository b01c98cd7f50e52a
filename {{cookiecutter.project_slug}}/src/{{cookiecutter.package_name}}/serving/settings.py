"""Settings of the server: `APP_PORT=8080` in the environment or `port=8080` on the command line."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from ..config import ENV_PREFIX, Given, Section, UserError, parse, validate


class Serving(Section):
    """Where the server listens, what it serves and what it accepts."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(default=8000, ge=0, le=65535, description="0 picks a free one")
    deployment_dir: Path = Field(default=Path("deployment"), description="filled by deploy")
    reload_seconds: float = Field(default=1.0, gt=0, description="how often to look for changes")
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024, description="larger requests get 413")
    drain_seconds: int = Field(default=20, ge=1, description="for open requests, after SIGTERM")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="info has a line per request, debug also those of health checks"
    )


def load(overrides: Sequence[str] = (), env: Mapping[str, str] = os.environ) -> Serving:
    """Settings from the environment and `key=value` overrides; UserError names what is wrong."""
    given: Given = {}
    for name in Serving.model_fields:
        variable = ENV_PREFIX + name.upper()
        if variable in env:
            given[(name,)] = (parse(env[variable]), f"${variable}")
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"command line: {override!r} is not of the form key=value")
        given[(name,)] = (parse(text), "command line")
    return validate(Serving, given)


def misspelt(env: Mapping[str, str] = os.environ) -> list[str]:
    """Warnings about variables that look like ours and are not.

    No error: APP_ is a common prefix, and a platform may set such variables for its own use.
    """
    known = [ENV_PREFIX + name.upper() for name in Serving.model_fields]
    strange = [name for name in env if name.startswith(ENV_PREFIX) and name not in known]
    return [
        f"${name} is not a setting, did you mean ${near[0]}?"
        for name in strange
        if (near := difflib.get_close_matches(name, known, 1, 0.8))
    ]
