"""Logs on standard error: JSON lines, or plain lines in a terminal."""

import json
import logging
import os
import socket
import sys
from datetime import UTC, datetime

REPEATED_SECONDS = 60.0
logger = logging.getLogger("serving")


class JsonFormatter(logging.Formatter):
    """Format a record as one JSON object; `extra={"fields": {...}}` adds members."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._source = {"host": socket.gethostname(), "process": process, "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._source,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TerminalFormatter(logging.Formatter):
    """Format a record as time, level, message and fields in one line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = "".join(f"  {k}={v}" for k, v in getattr(record, "fields", {}).items())
        line = f"{time} {record.levelname.lower():<7} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Occasional(logging.Filter):
    """Let each message of OpenTelemetry through once a minute: they recur while nobody receives."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[tuple[str, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("opentelemetry."):
            return True
        key = record.name, record.msg  # without its arguments
        again = record.created - self._shown.get(key, 0) < REPEATED_SECONDS
        if not again:
            self._shown[key] = record.created
        return not again


def configure_logs(level: str, process: str) -> None:
    """Send this server's and uvicorn's messages to standard error; `process` is this one's name."""
    handler = logging.StreamHandler()
    handler.setFormatter(TerminalFormatter() if sys.stderr.isatty() else JsonFormatter(process))
    handler.addFilter(Occasional())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger.setLevel(level.upper())
    logging.getLogger("uvicorn.error").setLevel("INFO" if level in ("debug", "info") else "WARNING")
