"""Settings of the server: `APP_PORT=8080` in the environment or `port=8080` on the command line."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from ..config import ENV_PREFIX, load_settings
from ..settings import DEFAULT_DATABASE, Section

# Secrets that stand in examples, and that therefore everybody knows.
WORTHLESS = {"", "admin", "change-me", "changeme", "default", "password", "postgres", "secret"}


def _words(value: Any) -> Any:
    """`a, b` as a list."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


Words = Annotated[list[str], BeforeValidator(_words)]


class ServerSettings(Section):
    """Where the server listens, what it serves, what it accepts and what it writes down."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(default=8000, ge=0, le=65535, description="0 picks a free one")
    workers: int = Field(default=1, ge=1, le=256, description="processes that share the port")
    environment: Literal["development", "production"] = Field(
        default="development", description="production refuses passwords that everybody knows"
    )
    api_keys: Words = Field(default=[], description="one of them must be sent, if any is set")
    cors_origins: Words = Field(default=[], description="web pages that may ask; default: none")

    deployment_dir: Path = Field(default=Path("deployment"), description="filled by deploy")
    reload_seconds: float = Field(default=1.0, gt=0, description="how often to look for changes")
    engine: Literal["auto", "inline", "lanes"] = Field(
        default="auto", description="where models run: in the event loop, in threads, by their time"
    )
    lanes: int = Field(default=0, ge=0, le=256, description="threads for models; 0: one per core")

    max_items: int = Field(default=256, ge=1, description="items of a request; more get 422")
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024, description="larger requests get 413")
    body_seconds: float = Field(default=10.0, gt=0, description="a slower body gets 408")
    deadline_ms: float = Field(
        default=10_000,
        gt=0,
        description="work not begun by then gets 504; the header x-timeout-ms may ask for less",
    )
    queue_seconds: float = Field(
        default=0.5, gt=0, description="of work that may wait; beyond it requests get 503"
    )
    drain_seconds: int = Field(default=20, ge=1, description="for open requests, after SIGTERM")

    database_url: str = Field(
        default=DEFAULT_DATABASE,
        description="prediction log: sqlite:///FILE or postgresql://…; none: no log",
    )
    caller_header: str = Field(
        default="x-caller-key", pattern="^[a-z0-9-]+$", description="names who asks, for A/B tests"
    )
    log_inputs: Literal["all", "sampled", "none"] = Field(
        default="all", description="which requests are kept to be learned from"
    )
    log_sample: float = Field(default=0.1, gt=0, le=1, description="share kept when sampled")
    log_seconds: float = Field(
        default=0.25, gt=0, le=60, description="between writes: the most that kill -9 can lose"
    )
    log_rows: int = Field(default=100_000, ge=1, description="rows that wait for a dead database")
    log_megabytes: int = Field(default=128, ge=1, description="memory that they may take")
    log_days: float = Field(default=365, gt=0, description="older rows of the log are deleted")
    input_days: float = Field(
        default=90, gt=0, description="older inputs that got no feedback are deleted"
    )
    monitor_seconds: float = Field(
        default=60, gt=0, description="between two looks at drift and quality, for /metrics"
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="of the lines on standard error"
    )
    access_log: bool = Field(default=False, description="a line for every request")

    @field_validator("database_url")
    @classmethod
    def _a_known_database(cls, url: str) -> str:
        if not re.match(r"none$|sqlite:///.|postgresql(\+psycopg)?://", url):
            raise ValueError("use sqlite:///FILE, postgresql://user:password@host/name, or none")
        return url

    @field_validator("api_keys", "database_url")
    @classmethod
    def _no_known_secrets(cls, value: list[str] | str, info: ValidationInfo) -> list[str] | str:
        if info.data.get("environment") == "production":
            secrets = [urlsplit(value).password] if isinstance(value, str) else value
            if any(secret is not None and secret.lower() in WORTHLESS for secret in secrets):
                raise ValueError("everybody knows this secret, choose a random one")
        return value


def load_server_settings(
    overrides: Sequence[str] = (), env: Mapping[str, str] = os.environ
) -> ServerSettings:
    """Settings from the environment and `key=value` overrides; UserError names what is wrong."""
    return load_settings(ServerSettings, None, overrides, env)


def as_environment(settings: ServerSettings) -> dict[str, str]:
    """The settings as variables, for the processes of several workers."""
    values = settings.model_dump(mode="json")
    return {
        ENV_PREFIX + name.upper(): ",".join(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }


def misspelt_variables(env: Mapping[str, str] = os.environ) -> list[str]:
    """Warnings about variables that look like ours and are not.

    No error: APP_ is a common prefix, and a platform may set such variables for its own use.
    """
    known = [ENV_PREFIX + name.upper() for name in ServerSettings.model_fields]
    strange = [name for name in env if name.startswith(ENV_PREFIX) and name not in known]
    return [
        f"${name} is not a setting, did you mean ${near[0]}?"
        for name in strange
        if (near := difflib.get_close_matches(name, known, 1, 0.8))
    ]
