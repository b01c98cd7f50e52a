"""Logs on standard error: JSON lines, or plain lines in a terminal."""

import json
import logging
import os
import socket
import sys
from datetime import UTC, datetime

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


def configure_logs(level: str, process: str) -> None:
    """Send this server's and uvicorn's messages to standard error; `process` is this one's name."""
    handler = logging.StreamHandler()
    handler.setFormatter(TerminalFormatter() if sys.stderr.isatty() else JsonFormatter(process))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger.setLevel(level.upper())
    logging.getLogger("uvicorn.error").setLevel("INFO" if level in ("debug", "info") else "WARNING")
