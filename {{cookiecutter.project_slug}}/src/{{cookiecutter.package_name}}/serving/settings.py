"""Settings of the server: `APP_PORT=8080` in the environment or `port=8080` on the command line."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, field_validator

from ..config import ENV_PREFIX, SECRETS, UserError
from ..settings import Section, StoreUrl, setting

SWITCH_SECONDS = 0.0002  # a thread may hold the GIL this long; Python's own 0.005 delay requests
HASHED = "sha256:"  # begins an API key that is given as its hash
# Example secrets that everybody knows
KNOWN_SECRETS = {"", "admin", "change-me", "changeme", "default", "password", "postgres", "secret"}


def _split_words(value: Any) -> Any:
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


def _usable_keys(keys: list[str], info: ValidationInfo) -> list[str]:
    check_keys(keys, info.data.get("environment", ""))
    return keys


Words = Annotated[list[str], BeforeValidator(_split_words)]  # `a, b` in the environment
Keys = Annotated[Words, AfterValidator(_usable_keys)]
Platform = Literal["kserve", "sagemaker", "vertex"]
SAGEMAKER_MODEL = Path("/opt/ml/model")  # where SageMaker unpacks a model's files


class CoreServerSettings(Section):
    """Settings of every server: address, models, limits and logs."""

    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    port: int = setting(8000, "0 picks a free port", ge=0, le=65535)
    workers: int = setting(1, "processes that share the port", ge=1, le=256)
    root_path: str = setting(
        "", "prefix that a proxy adds to the paths, such as /model", pattern=r"^(/[\w.~-]+)*$"
    )
    environment: Literal["development", "production"] = setting(
        "development", "production refuses well-known example secrets"
    )
    api_keys: Keys = setting(
        [], "if set, requests must send one of these keys; sha256:HEX accepts a key by its hash"
    )
    api_keys_file: Path | None = setting(
        None, "file with more keys, one per line; it may change while the server runs"
    )
    metrics: Literal["open", "key", "off"] = setting(
        "open", "who may read /metrics: all, callers with a key, nobody"
    )
    docs: bool = setting(True, "show /docs and /openapi.json")
    allowed_hosts: Words = setting(
        [], "accepted Host headers, * for all; default: all, but on 127.0.0.1 only its names"
    )
    cors_origins: Words = setting([], "allowed CORS origins; default: none")

    deployment_dir: Path = setting(Path("deployment"), "folder that deploy writes")
    reload_seconds: float = setting(1.0, "seconds between checks for a new deployment", gt=0)
    engine: Literal["auto", "inline", "lanes"] = setting(
        "auto", "run models inline in the event loop or in lanes (threads); auto: by latency"
    )
    lanes: int = setting(0, "threads that run models; 0: cores / workers", ge=0, le=256)
    caller_header: str = setting(
        "x-caller-key",
        "request header that identifies the caller in A/B tests",
        pattern="^[a-z0-9-]+$",
    )

    max_connections: int = setting(
        1000, "open connections per process; more get 503 and are closed", ge=1
    )
    max_header_bytes: int = setting(65536, "bytes per header; more get 431", ge=1024)
    header_seconds: float = setting(
        10.0, "seconds for a header and the begin of its body; slower ones get 408", gt=0
    )
    max_items: int = setting(256, "items per request; more get 422", ge=1)
    max_body_bytes: int = setting(
        4 * 2**20, "bytes per body, also decompressed; more get 413", ge=1024
    )
    body_seconds: float = setting(10.0, "seconds to receive a body; slower ones get 408", gt=0)
    deadline_ms: float = setting(
        10_000, "milliseconds until inference starts, else 504; x-timeout-ms can lower it", gt=0
    )
    queue_seconds: float = setting(0.5, "seconds of work that may queue; beyond it 503", gt=0)
    drain_seconds: float = setting(
        8.0, "seconds from SIGTERM to the end: lame duck, open requests, log", ge=1
    )
    lame_duck_seconds: float = setting(
        0.0, "of these, seconds in which /readyz says 503 and requests are still accepted", ge=0
    )

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "lowest level of messages on standard error"
    )
    access_log: bool = setting(False, "log every request")
    page: bool = setting(True, "show a page to try the model at /")
    platforms: Annotated[list[Platform], BeforeValidator(_split_words)] = setting(
        [],
        "platforms whose routes to answer too: kserve, sagemaker, vertex; default: the one that "
        "started the container, as its own variables say",
    )

    deployment_url: StoreUrl = setting(
        None, "directory or URL of fsspec to pull deployments from, written by publish"
    )
    pull_seconds: float = setting(10.0, "seconds between looks at deployment_url", gt=0)
    keep_bundles: int | None = setting(
        10, "pulled bundles to keep that deployment.json no longer names", ge=0
    )

    @field_validator("api_keys_file")
    @classmethod
    def _usable_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None or path == Path():  # APP_API_KEYS_FILE= is as good as none
            return None
        read_keys(path, info.data.get("environment", ""))
        return path

    @field_validator("metrics")
    @classmethod
    def _has_keys(cls, access: str, info: ValidationInfo) -> str:
        if access == "key" and not (info.data.get("api_keys") or info.data.get("api_keys_file")):
            raise ValueError("set api_keys or api_keys_file too, there is no key")
        return access

    @field_validator("lame_duck_seconds")
    @classmethod
    def _shorter(cls, seconds: float, info: ValidationInfo) -> float:
        if seconds >= info.data.get("drain_seconds", seconds + 1):
            raise ValueError("must be less than drain_seconds, which contains it")
        return seconds

    @field_validator("platforms")
    @classmethod
    def _has_routes(cls, platforms: list[Platform]) -> list[Platform]:
        for name in ("AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE"):
            if "vertex" in platforms and not os.environ.get(name, "").startswith("/"):
                raise ValueError(f"vertex needs a path in ${name}, which Vertex AI sets")
        return platforms


def refuse_known_secrets(secrets: Sequence[str], environment: str) -> None:
    """Raise ValueError when, in production, one of the secrets is a well-known one."""
    if environment == "production" and KNOWN_SECRETS & {secret.lower() for secret in secrets}:
        raise ValueError("is a well-known example secret, choose a random one")


def key_hash(key: str) -> bytes:
    """Return the SHA-256 hash of an API key, which may be given as `sha256:HEX` itself.

    Raises ValueError for anything else behind `sha256:`.
    """
    if not key.startswith(HASHED):
        return sha256(key.encode()).digest()
    digits = key.removeprefix(HASHED)
    if not re.fullmatch("[0-9a-fA-F]{64}", digits):
        raise ValueError(f"{HASHED} must be followed by the 64 hexadecimal digits of a hash")
    return bytes.fromhex(digits)


def check_keys(keys: Sequence[str], environment: str) -> None:
    """Raise ValueError if one of the keys is no key, or in production a well-known one."""
    refuse_known_secrets(keys, environment)
    for key in keys:
        key_hash(key)


def read_keys(path: Path, environment: str) -> list[str]:
    """Read API keys, separated by line ends or commas. Raises ValueError if one may not be used."""
    try:
        keys = _split_words(path.read_text(encoding="utf-8").replace("\n", ","))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    if not keys:
        raise ValueError("holds no key")
    check_keys(keys, environment)
    return keys


def as_environment(settings: CoreServerSettings) -> dict[str, str]:
    """Write the settings as environment variables, for the worker processes."""
    values = settings.model_dump(mode="json")
    return {
        ENV_PREFIX + name.upper(): ",".join(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
        if value is not None
    }


def with_platform(env: Mapping[str, str]) -> dict[str, str]:
    """Add to the environment the server's variables that a platform's own ones stand for, where
    they are not set. Raises UserError when a port is none."""
    if "AIP_HTTP_PORT" in env:
        return {"APP_PLATFORMS": "vertex", **_port(env, "AIP_HTTP_PORT"), **env}
    if SAGEMAKER_MODEL.is_dir() or "SAGEMAKER_BIND_TO_PORT" in env:
        from ..bundle.deployment import DEPLOYMENT  # slow to import for whom it does not concern

        port = _port(env, "SAGEMAKER_BIND_TO_PORT") or {"APP_PORT": "8080"}
        variables = {"APP_PLATFORMS": "sagemaker", **port, **env}
        own = Path(env.get("APP_DEPLOYMENT_DIR", "deployment"))  # in an image always set
        if (SAGEMAKER_MODEL / DEPLOYMENT).exists() and not (own / DEPLOYMENT).exists():
            variables["APP_DEPLOYMENT_DIR"] = str(SAGEMAKER_MODEL)
        return variables
    return {**_port(env, "PORT"), **env}  # of Cloud Run and many others


def _port(env: Mapping[str, str], name: str) -> dict[str, str]:
    if not (text := env.get(name)):
        return {}
    if not text.isdecimal():
        raise UserError(f"${name}: {text!r} is not a port number")
    return {"APP_PORT": text}


def misspelt_variables(
    schema: type[CoreServerSettings], env: Mapping[str, str] = os.environ
) -> list[str]:
    """Warn about variables whose names are close to a setting's."""
    # No error: APP_ is a common prefix, and a platform may set such variables itself.
    variables = [ENV_PREFIX + name.upper() for name in schema.model_fields]
    files = [f"{ENV_PREFIX}{name.upper()}_FILE" for name in SECRETS]
    return [
        f"${name} is not a setting, did you mean ${similar[0]}?"
        for name in env
        if name.startswith(ENV_PREFIX) and name not in {*variables, *files}
        if (similar := difflib.get_close_matches(name, variables, 1, 0.8))
    ]
