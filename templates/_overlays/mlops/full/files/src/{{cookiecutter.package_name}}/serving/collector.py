"""The collector: it moves predictions from the spool to the database, beside the server.

It derives rows, records feedback, prunes, and measures drift and quality. The server notices none
of it: it appends to the spool whether or not a collector reads it, or a database answers.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ..bundle import deployment
from ..bundle.load import BadBundle, load_contract
from ..config import UserError
from ..files import write_json
from ..store.columns import Columns
from ..store.database import Database, DatabaseError, RowsRejected
from ..store.feedback import AmbiguousRequest, RefusedFeedback, UnknownRequest, record_feedback
from ..store.feedback_schema import Feedback
from ..store.spool import Chunk, DamagedSegment, SpoolReader
from ..store.write import PredictionRow, insert_predictions, prune_log
from ..task.contract import GroundTruth
from .collector_metrics import CollectorMetrics, measured_families
from .feedback_socket import FeedbackServer
from .logs import logger
from .wiring import COLLECTOR_METRICS, COLLECTOR_STATUS, ServerSettings, spool_folder

TRANSACTION_ROWS = 1000
RETRY_SECONDS = (0.25, 0.5, 1, 2, 5)  # before a failed write is repeated; the last one recurs
LOGGED_FAILURES = (1, 11, 101)  # failures in a row; not every one is logged
END_SECONDS = 1.0  # in which a failed write is repeated at the end
LOCK_SECONDS = 2.0  # that feedback waits for a write in progress
LOCKED_SECONDS = 5.0  # between looks whether another collector has ended
PRUNE_SECONDS = 3600.0
FIRST_PRUNE_SECONDS = 60.0  # after the start
JUMP_SECONDS = 300.0  # more than a clock is corrected by in normal operation
METRICS_SECONDS = 5.0  # longest age of the metrics file
DAY = 86400.0


class Collector:
    """Move predictions from the spool to the database, until told to end."""

    def __init__(
        self, settings: ServerSettings, read_settings: Callable[[], ServerSettings] | None = None
    ) -> None:
        """Start from these settings; `read_settings` reads them again when the database fails."""
        self.settings, self.folder = settings, spool_folder(settings)
        self.database = Database(settings.database_url)
        self._read_settings = read_settings or (lambda: settings)
        self.reader = SpoolReader(self.folder)
        self.metrics = CollectorMetrics()
        self.problem: str | None = None  # why the database cannot be written
        self.written = 0  # rows
        self._failures = 0
        self._migrated = False
        self._writing = threading.Lock()  # one at a time reads the spool and writes its rows
        self._pruning: Iterator[object] = iter(())
        self._inputs_cleared = -math.inf  # up to this time; a start looks at all of them once
        self._next_prune = time.monotonic() + FIRST_PRUNE_SECONDS
        self._clock_offset = time.time() - time.monotonic()  # changes when the clock jumps
        self._metrics_written = 0.0

    def run(self, ended: threading.Event, measure: bool = True) -> None:
        """Collect until `ended`, then once more what is left."""
        if not self._become_reader(ended):
            return
        self._write_status(None)
        with FeedbackServer(self.folder, self.feedback):
            if measure:
                threading.Thread(target=self._measure_loop, args=[ended], daemon=True).start()
            while not ended.is_set():
                ended.wait(self._step())
            self._pruning, self._next_prune = iter(()), math.inf  # can wait for the next start
            deadline = time.monotonic() + END_SECONDS
            while (pause := self._step()) == 0 or (self._failures and time.monotonic() < deadline):
                time.sleep(min(pause, RETRY_SECONDS[0]))
        self.write_metrics()
        self.close()

    def close(self) -> None:
        self.database.close()
        self.reader.unlock()

    def collect(self) -> int:
        """Write all that waits in the spool; return the number of rows. Raises DatabaseError."""
        total = 0
        while rows := self._collect_some():
            total += rows
        return total

    def feedback(self, content: dict[str, Any]) -> dict[str, Any]:
        """Record feedback that the server passes on; return its answer, or what is wrong."""
        if not self._writing.acquire(timeout=LOCK_SECONDS):
            return {"status": 503, "message": self.problem or "the database does not answer"}
        try:
            feedbacks = [Feedback[GroundTruth].model_validate(one) for one in content["feedback"]]
            champion = deployment.champion_path(self.settings.deployment_dir)[0]
            score = load_contract(champion).score_json
            while self._collect():  # a prediction made a moment ago counts
                pass
            asker, only = content["asker"], not content["any_request"]
            counts = record_feedback(self.database, feedbacks, score, asker, only)
        except RefusedFeedback as error:
            status, field = 422, "truth"
            if isinstance(error, (UnknownRequest, AmbiguousRequest)):
                status, field = 404 if isinstance(error, UnknownRequest) else 409, "request_id"
            return {"status": status, "index": error.index, "field": field, "message": str(error)}
        except (DatabaseError, BadBundle, ValidationError, OSError) as error:
            self._refresh_address()
            return {"status": 503, "message": " ".join(str(error).split())}
        finally:
            self._writing.release()
        for (version, variant), count in counts.by_model.items():
            self.metrics.feedback.labels(version, variant).inc(count)
        self.write_metrics()
        return {"new": counts.new, "changed": counts.changed, "same": counts.same}

    def measure(self) -> None:
        """Measure drift and quality of the deployed models for the metrics."""
        self._migrate()
        families = measured_families(self.database, self.settings.deployment_dir)
        self.metrics.measured.families = families
        self.write_metrics()

    def write_metrics(self) -> None:
        """Write the metrics where the server finds them."""
        self._metrics_written = time.monotonic()
        content = self.metrics.render()
        path = self.folder / COLLECTOR_METRICS
        with suppress(OSError):  # a full disk; the spool's own error says so
            fresh = path.with_suffix(f".{threading.get_ident()}")
            fresh.write_bytes(content)
            fresh.replace(path)

    def _step(self) -> float:
        """Collect, and prune a little from time to time; return the seconds to pause."""
        try:
            rows = self._collect_some()
            pruned = not rows and self._prune()
        except DatabaseError as error:
            self._failures += 1
            self.metrics.errors.inc()
            self._refresh_address()
            self._report(str(error))
            self.write_metrics()
            return RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS)) - 1]
        if self._failures:
            logger.info("the prediction log is written again", extra={"fields": {"rows": rows}})
            self._failures = 0
            self._report(None)
        if rows or time.monotonic() - self._metrics_written > METRICS_SECONDS:
            self.write_metrics()
        return 0 if rows or pruned else min(self.settings.log_seconds, 1.0)

    def _refresh_address(self) -> None:
        """Take another address of the database, as after its password was replaced in the file of
        APP_DATABASE_URL_FILE."""
        with suppress(UserError):  # the file is not readable now: the old address is tried again
            url = self._read_settings().database_url
            if url != self.settings.database_url:
                fresh, old = Database(url), self.database
                self.settings = self.settings.model_copy(update={"database_url": url})
                self.database, self._migrated = fresh, False
                old.close()
                logger.info("the database has another address or password now")

    def _become_reader(self, ended: threading.Event) -> bool:
        """Wait until the spool can be read and nobody else does; False if told to end before."""
        told = None
        while True:
            try:
                if self.reader.lock():
                    return True
                reason = f"{self.folder}: another collector reads it"
            except OSError as error:
                reason = f"{self.folder}: {error.strerror or error}"
            if reason != told:
                logger.warning("the collector waits", extra={"fields": {"reason": reason}})
                told = reason
            if ended.wait(LOCKED_SECONDS):
                return False

    def _collect_some(self) -> int:
        with self._writing:
            return self._collect()

    def _report(self, problem: str | None) -> None:
        if problem is not None and self._failures in LOGGED_FAILURES:
            fields = {"reason": problem, "spool": str(self.folder)}
            logger.error("prediction log cannot be written", extra={"fields": fields})
        if problem != self.problem:
            self._write_status(problem)
        self.problem = problem

    def _write_status(self, problem: str | None) -> None:
        with suppress(OSError):  # a full disk; the spool's own error says so
            write_json(self.folder / COLLECTOR_STATUS, {"problem": problem, "pid": os.getpid()})

    def _migrate(self) -> None:
        if not self._migrated:
            self.database.migrate()
            self._migrated = True

    def _collect(self) -> int:
        """Write a transaction of what waits in the spool; return how many rows that was."""
        rows: list[PredictionRow] = []
        ends: dict[Path, int] = {}
        try:
            self._migrate()
            for path, chunk, end in self.reader.read():
                try:
                    rows += rows_of(chunk)
                except (KeyError, ValueError, TypeError) as error:  # of another version
                    raise DamagedSegment(path, repr(error)) from None
                ends[path] = end
                if len(rows) >= TRANSACTION_ROWS:
                    break
            if ends:
                self._write(rows)
                self.reader.commit(ends)
        except DamagedSegment as error:
            error.path.rename(error.path.with_suffix(".damaged"))
            self.metrics.refused.labels("damaged").inc()
            logger.error("a segment is set aside", extra={"fields": {"reason": str(error)}})
        except OSError as error:
            raise DatabaseError(f"{self.folder}: {error.strerror or error}") from None
        return len(rows)

    def _write(self, rows: list[PredictionRow]) -> None:
        """Write rows; a rejected row does not affect the others."""
        try:
            written = insert_predictions(self.database, rows)
        except RowsRejected as error:
            if len(rows) > 1:  # find it by halves
                self._write(rows[: len(rows) // 2])
                self._write(rows[len(rows) // 2 :])
                return
            self.metrics.refused.labels("refused").inc()
            fields = {"reason": str(error), "request_id": rows[0].request_id}
            logger.error("prediction log lost a row", extra={"fields": fields})
        else:
            self.metrics.rows.inc(written)
            self.written += written

    def _prune(self) -> bool:
        """Delete a few old rows once an hour; True while there may be more."""
        with self._writing:  # feedback takes turns, instead of asking SQLite again and again
            if next(self._pruning, None) is not None:
                return True
        if time.monotonic() < self._next_prune:
            return False
        self._next_prune = time.monotonic() + PRUNE_SECONDS
        now = time.time()
        jump = now - time.monotonic() - self._clock_offset
        self._clock_offset += jump
        if abs(jump) > JUMP_SECONDS:  # must not make rows look old
            fields = {"seconds": round(jump)}
            logger.warning("clock jumped, no rows are deleted now", extra={"fields": fields})
            return False
        self._pruning = self._prune_steps(now)
        return True

    def _prune_steps(self, now: float) -> Iterator[object]:
        oldest_row = now - self.settings.log_days * DAY
        oldest_input = now - self.settings.input_days * DAY
        yield from prune_log(self.database, oldest_row, oldest_input, self._inputs_cleared)
        self._inputs_cleared = oldest_input

    def _measure_loop(self, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                self.measure()
            except (DatabaseError, BadBundle, UserError) as error:  # reported elsewhere
                logger.debug("monitoring waits", extra={"fields": {"reason": str(error)}})
            except Exception:  # the next measurement may succeed
                logger.exception("drift and quality were not measured")
            ended.wait(self.settings.monitor_seconds)


def rows_of(chunk: Chunk) -> list[PredictionRow]:
    """Turn a chunk into rows of the log."""
    texts, numbers, bodies = chunk.texts, chunk.numbers, chunk.bodies
    stops = list(accumulate(texts["items"]))
    spans = list(zip([0, *stops], stops, strict=False))
    version, variant, test = chunk.model
    columns: dict[str, list[Any]] = {
        "trace_id": [None] * len(spans),  # a chunk of before has none
        **texts,
        **{name: numbers[name].tolist() for name in ("at", "milliseconds")},
        "model_version": [str(version)] * len(spans),
        "variant": [str(variant)] * len(spans),
        "test": [test] * len(spans),
        "output": [(output or b"[]").decode() for output in bodies["output"]],
        "input": [None if body is None else items_json(body) for body in bodies["body"]],
    }
    for kind in ("features", "outcomes"):
        values = {
            name.removeprefix(f"{kind}."): np.asarray(column)
            for name, column in {**texts, **numbers}.items()
            if name.startswith(f"{kind}.")
        }
        columns[kind] = Columns(values, spans).to_json() if values else ["{}"] * len(spans)
    return [
        PredictionRow(*row)
        for row in zip(*(columns[name] for name in PredictionRow._fields), strict=True)
    ]


def items_json(body: bytes) -> str:
    """Cut the list of items out of a valid body, an object without other lists."""
    if body.count(b'"items"') > 1 or b"\\" in body:  # of duplicate keys the last one counts
        return json.dumps(json.loads(body)["items"])
    return body[body.index(b"[") : body.rindex(b"]") + 1].decode()
