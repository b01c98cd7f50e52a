"""Settings of the server: `APP_PORT=8080` in the environment or `port=8080` on the command line."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from ..config import ENV_PREFIX
from ..settings import Section

SWITCH_SECONDS = 0.0002  # a thread may hold the GIL this long; Python's own 0.005 delay requests
# Example secrets that everybody knows.
KNOWN_SECRETS = {"", "admin", "change-me", "changeme", "default", "password", "postgres", "secret"}


def _split(value: Any) -> Any:
    """Turn `a, b` into a list."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


Words = Annotated[list[str], BeforeValidator(_split)]


class CoreServerSettings(Section):
    """Settings of every server: address, models, limits and logs."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(default=8000, ge=0, le=65535, description="0 picks a free port")
    workers: int = Field(default=1, ge=1, le=256, description="processes that share the port")
    environment: Literal["development", "production"] = Field(
        default="development", description="production refuses well-known example secrets"
    )
    api_keys: Words = Field(default=[], description="if set, requests must send one of these keys")
    cors_origins: Words = Field(default=[], description="allowed CORS origins; default: none")

    deployment_dir: Path = Field(
        default=Path("deployment"), description="folder that deploy writes"
    )
    reload_seconds: float = Field(
        default=1.0, gt=0, description="seconds between checks for a new deployment"
    )
    engine: Literal["auto", "inline", "lanes"] = Field(
        default="auto",
        description="run models inline in the event loop or in lanes (threads); auto: by latency",
    )
    lanes: int = Field(
        default=0, ge=0, le=256, description="threads that run models; 0: cores / workers"
    )
    caller_header: str = Field(
        default="x-caller-key",
        pattern="^[a-z0-9-]+$",
        description="request header that identifies the caller in A/B tests",
    )

    max_items: int = Field(default=256, ge=1, description="items per request; more get 422")
    max_body_bytes: int = Field(
        default=4 * 2**20,
        ge=1024,
        description="bytes per body, also decompressed; more get 413",
    )
    body_seconds: float = Field(
        default=10.0, gt=0, description="seconds to receive a body; slower ones get 408"
    )
    deadline_ms: float = Field(
        default=10_000,
        gt=0,
        description="milliseconds until inference starts, else 504; x-timeout-ms can lower it",
    )
    queue_seconds: float = Field(
        default=0.5,
        gt=0,
        description="seconds of work that may queue; beyond it 503",
    )
    drain_seconds: int = Field(
        default=20, ge=1, description="seconds to finish open requests after SIGTERM"
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level of messages on standard error"
    )
    access_log: bool = Field(default=False, description="log every request")

    @field_validator("api_keys")
    @classmethod
    def _no_known_keys(cls, keys: list[str], info: ValidationInfo) -> list[str]:
        refuse_known_secrets(keys, info)
        return keys


def refuse_known_secrets(secrets: Sequence[str], info: ValidationInfo) -> None:
    """Raise ValueError when, in production, one of the secrets is a well-known one."""
    if info.data.get("environment") == "production" and KNOWN_SECRETS & set(
        map(str.lower, secrets)
    ):
        raise ValueError("is a well-known example secret, choose a random one")


def as_environment(settings: CoreServerSettings) -> dict[str, str]:
    """Write the settings as environment variables, for the worker processes."""
    values = settings.model_dump(mode="json")
    return {
        ENV_PREFIX + name.upper(): ",".join(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }


def misspelt_variables(
    schema: type[CoreServerSettings], env: Mapping[str, str] = os.environ
) -> list[str]:
    """Warn about variables whose names are close to a setting's.

    A warning and no error: APP_ is a common prefix, and a platform may set such variables itself.
    """
    variables = [ENV_PREFIX + name.upper() for name in schema.model_fields]
    unknown = [name for name in env if name.startswith(ENV_PREFIX) and name not in variables]
    return [
        f"${name} is not a setting, did you mean ${similar[0]}?"
        for name in unknown
        if (similar := difflib.get_close_matches(name, variables, 1, 0.8))
    ]
