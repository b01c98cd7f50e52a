"""The thread that writes the prediction log.

While the database is away rows wait in memory, within `log_rows` and `log_megabytes`; what does not
fit is counted as lost.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ..store.row import PredictionRow
from .log_metrics import LogMetrics
from .logs import logger
from .wiring import ServerSettings

if TYPE_CHECKING:
    from ..store.database import Database

TRANSACTION_ROWS = 1000
RETRY_SECONDS = (0.25, 0.5, 1, 2, 5)  # before a failed write is repeated; the last one recurs
STOP_RETRY_SECONDS = 0.2
LOGGED_FAILURES = (1, 11, 101)  # failures in a row; not every one is logged
PRUNE_SECONDS = 3600.0
FIRST_PRUNE_SECONDS = 60.0  # after the start
JUMP_SECONDS = 300.0  # more than a clock is corrected by in normal operation
DAY = 86400.0


class LogWriter:
    """Write rows to the database, in transactions of many."""

    def __init__(self, settings: ServerSettings, metrics: LogMetrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.enabled = settings.database_url != "none"
        self._rows: deque[PredictionRow] = deque()
        self._bytes = 0
        self._in_flight = 0  # rows of the transaction that is being written
        self._changed = threading.Condition()  # guards what stands above
        self._stopping = False
        self._clock_offset = time.time() - time.monotonic()  # changes when the clock jumps
        self._thread = threading.Thread(target=self._write_loop, name="log", daemon=True)

    @cached_property
    def database(self) -> Database:
        from ..store.database import Database

        return Database(self.settings.database_url)

    def start(self) -> None:
        if self.enabled:
            self._thread.start()

    def stop(self, seconds: float) -> None:
        """Write what is queued, within `seconds`; rows that are left are counted as lost."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self.enabled:
            self._thread.join(max(0.1, seconds))
        if lost := len(self._rows) + self._in_flight:
            self.metrics.lost("stopped").inc(lost)
            fields = {"rows": lost, "reason": "the database did not accept them in time"}
            logger.error("prediction log lost rows", extra={"fields": fields})

    def enqueue(self, rows: Sequence[PredictionRow]) -> None:
        """Queue rows; those beyond the limits of memory are lost."""
        max_bytes = self.settings.log_megabytes * 2**20
        lost = 0
        with self._changed:
            for row in rows:
                if len(self._rows) >= self.settings.log_rows or self._bytes >= max_bytes:
                    lost += 1
                else:
                    self._rows.append(row)
                    self._bytes += _size(row)
            self._changed.notify_all()
        if lost:
            self.metrics.lost("full").inc(lost)

    def wait_until_written(self, seconds: float) -> bool:
        """Wait until no row is queued; False when `seconds` are not enough."""
        with self._changed:
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._rows and not self._in_flight, seconds)

    def update_metrics(self) -> None:
        self.metrics.waiting.set(len(self._rows) + self._in_flight)
        lag = time.time() - self._rows[0].at if self._rows else 0
        self.metrics.lag.set(max(0.0, lag))

    def _write_loop(self) -> None:
        failures, next_prune, migrated = 0, time.monotonic() + FIRST_PRUNE_SECONDS, False
        while True:
            # 1. Wait for rows.
            with self._changed:
                self._changed.wait_for(lambda: self._rows or self._stopping, PRUNE_SECONDS)
                if not self._rows and self._stopping:
                    break
                rows = [self._rows.popleft() for _ in range(min(TRANSACTION_ROWS, len(self._rows)))]
                self._bytes -= sum(map(_size, rows))
                self._in_flight = len(rows)
            try:
                # 2. Write them.
                if not migrated:
                    self.database.migrate()
                    gc.freeze()  # the database's library: to collect all of it takes 12 ms
                    migrated = True
                self._write(rows)
                failures = 0
                # 3. From time to time, delete old rows.
                if time.monotonic() > next_prune:
                    next_prune = time.monotonic() + PRUNE_SECONDS
                    self._prune()
            except Exception as error:  # the rows go back and wait; no request notices
                failures += 1
                self.metrics.errors.inc()
                with self._changed:
                    self._rows.extendleft(reversed(rows))
                    self._bytes += sum(map(_size, rows))
                    self._in_flight = 0  # they wait again, and must not be counted twice
                if failures in LOGGED_FAILURES:
                    fields = {"reason": str(error), "rows_waiting": len(self._rows)}
                    logger.error("prediction log cannot be written", extra={"fields": fields})
                pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1]
                time.sleep(STOP_RETRY_SECONDS if self._stopping else pause)
            finally:
                with self._changed:
                    self._in_flight = 0
                    self._changed.notify_all()
        self.database.close()

    def _write(self, rows: list[PredictionRow]) -> None:
        """Write rows; a rejected row does not affect the others."""
        from ..store.database import RowsRejected
        from ..store.write import insert_predictions

        try:
            self.metrics.rows.inc(insert_predictions(self.database, rows))
        except RowsRejected as error:
            if len(rows) > 1:  # find it by writing one at a time
                for row in rows:
                    self._write([row])
                return
            self.metrics.lost("refused").inc()
            fields = {"reason": str(error), "request_id": rows[0].request_id}
            logger.error("prediction log lost a row", extra={"fields": fields})

    def _prune(self) -> None:
        """Delete old rows, unless the clock jumped: that must not make rows look old."""
        from ..store.write import prune_log

        now = time.time()
        jump = now - time.monotonic() - self._clock_offset
        self._clock_offset += jump
        if abs(jump) > JUMP_SECONDS:
            fields = {"seconds": round(jump)}
            logger.warning("clock jumped, no rows are deleted now", extra={"fields": fields})
            return
        oldest_input = now - self.settings.input_days * DAY
        prune_log(self.database, now - self.settings.log_days * DAY, oldest_input)


def _size(row: PredictionRow) -> int:
    """Estimate the bytes that a row takes in memory."""
    return 300 + len(row.input or "") + len(row.output) + len(row.features) + len(row.outcomes)
