"""Logs as one JSON object per line on standard error."""

import json
import logging
from datetime import UTC, datetime

logger = logging.getLogger("serving")


class JsonLines(logging.Formatter):
    """Time, level and message, then whatever the call gave as `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Send this server's and uvicorn's messages to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger.setLevel(level.upper())
    logging.getLogger("uvicorn.error").setLevel("INFO" if level in ("debug", "info") else "WARNING")
