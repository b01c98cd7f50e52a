"""What is kept of answered requests: metrics and the prediction log, both off the request's path.

A request only appends one tuple. A thread turns these into counts and rows, another one writes the
rows to the database, in batches. When the database is away rows wait, within the limits of
`log_rows` and `log_megabytes`; what does not fit is counted as lost, and no request ever fails.

At risk when the process is killed: what was answered within the last `log_seconds`, and what the
database has not taken yet. SIGTERM loses nothing that can be written within `drain_seconds`.
"""

from __future__ import annotations

import gc
import json
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import cached_property, lru_cache
from itertools import pairwise
from random import random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..interfaces import Arrays
from ..store.row import PredictionRow
from .logs import logger
from .metrics import ServerMetrics
from .models import SHADOW, ServedModel
from .scheduler import BatchResult, RequestResult
from .settings import ServerSettings

if TYPE_CHECKING:
    from ..store.database import Database

FLUSH_EVENTS = 500  # answers that are dealt with before the time is up
TRANSACTION_ROWS = 1000  # rows of a transaction
RETRY_SECONDS = (0.25, 0.5, 1, 2, 5)  # seconds before a failed write is tried again
PRUNE_SECONDS = 3600.0
FIRST_PRUNE_SECONDS = 60.0  # after the start, which has other things to do
JUMP_SECONDS = 300.0  # more than a clock is set right by from time to time
MAX_BUCKETS = 20  # values of an outcome that metrics tell apart


class PredictionEvent(NamedTuple):
    """A request that got its predictions."""

    model: ServedModel
    test: str | None
    unit: str
    request_id: str
    at: float  # seconds since the epoch
    seconds: float
    body: bytes  # of the request
    answer: RequestResult


class PredictionEvents:
    """Takes note of answers."""

    def __init__(self, settings: ServerSettings, metrics: ServerMetrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.events: deque[PredictionEvent] = deque()
        self._rows: deque[PredictionRow] = deque()
        self._bytes = 0
        self._digesting = threading.Lock()
        self._wake, self._work = threading.Event(), threading.Condition()
        self._stopping = False
        self._in_flight = 0  # rows that are being written
        self._ahead = time.time() - time.monotonic()  # of the clock; grows when it jumps
        self._buckets: dict[tuple[str, str], Buckets] = {}
        self._digester = threading.Thread(target=self._digest_often, name="digest", daemon=True)
        self._writer = threading.Thread(target=self._write_often, name="log", daemon=True)

    @property
    def logs(self) -> bool:
        """Whether there is a prediction log at all."""
        return self.settings.database_url != "none"

    @cached_property
    def database(self) -> Database:
        """The log; not connected before it is used. Its library is imported late, by a thread, as
        a model can answer without."""
        from ..store.database import Database

        return Database(self.settings.database_url)

    def add(self, event: PredictionEvent) -> None:
        """Take note; called on the request's path."""
        self.events.append(event)
        if len(self.events) == FLUSH_EVENTS:
            self._wake.set()

    def start(self) -> None:
        """Begin to count and to write."""
        if self.logs:
            self._writer.start()
        self._digester.start()

    def stop(self, seconds: float) -> None:
        """Count and write what is there, for so long at most."""
        deadline = time.monotonic() + seconds
        self._stopping = True
        self._wake.set()
        self._digester.join(seconds)
        with self._work:
            self._work.notify_all()
        if self.logs:
            self._writer.join(max(0.1, deadline - time.monotonic()))
        if lost := len(self._rows) + self._in_flight:
            self.metrics.log_lost("stopped").inc(lost)
            fields = {"rows": lost, "reason": "the database did not take them in time"}
            logger.error("prediction log lost rows", extra={"fields": fields})

    def flush(self, seconds: float) -> bool:
        """Wait until what was answered before is written; False when it is not in time."""
        self.digest()
        with self._work:
            self._work.notify_all()
            return self._work.wait_for(lambda: not self._rows and not self._in_flight, seconds)

    def wait_for_others(self) -> None:
        """Long enough for other workers to have written what they answered before."""
        if self.settings.workers > 1:
            time.sleep(2 * self.settings.log_seconds)

    def digest(self) -> None:
        """Turn what was noted into counts and rows. Safe in any thread."""
        with self._digesting:
            events = [self.events.popleft() for _ in range(len(self.events))]
            by_model: dict[int, list[PredictionEvent]] = {}
            for event in events:
                by_model.setdefault(id(event.model), []).append(event)
            for some in by_model.values():
                try:
                    self._digest(some[0].model, some)
                except Exception:  # of these answers; the others and the next ones go on
                    self.metrics.log_lost("broken").inc(len(some))
                    logger.exception("answers were not counted")
            waiting = len(self._rows) + self._in_flight
            self.metrics.log_waiting.set(waiting)
            oldest = self._rows[0].at if self._rows else 0
            self.metrics.log_lag.set(max(0.0, time.time() - oldest) if oldest else 0)

    def _digest(self, model: ServedModel, events: list[PredictionEvent]) -> None:
        names = model.version, model.variant
        if model.variant != SHADOW:
            self.metrics.requests("/v1/predict", "200", *names).inc(len(events))
            seconds = [event.seconds for event in events]
            self.metrics.seconds("/v1/predict", *names).observe_many(seconds)
        items = sum(event.answer.stop - event.answer.start for event in events)
        self.metrics.predictions(*names).inc(items)
        contract = model.bundle.contract
        outcomes = _columns(events, lambda ran: ran.outputs, contract.prediction_stats)
        self._count(model, outcomes)
        if not self.logs:
            return
        features = _columns(events, lambda ran: ran.inputs, contract.features).texts()
        inputs = self._inputs(events)
        self._enqueue(
            [
                PredictionRow(
                    event.request_id,
                    event.at,
                    *names,
                    event.test,
                    event.unit,
                    event.answer.stop - event.answer.start,
                    event.seconds * 1000,
                    feature,
                    outcome,
                    event.answer.body.decode(),
                    kept,
                )
                for event, feature, outcome, kept in zip(
                    events, features, outcomes.texts(), inputs, strict=True
                )
            ]
        )

    def _count(self, model: ServedModel, outcomes: Columns) -> None:
        """Predictions by class or bucket."""
        for name, values in outcomes.values.items():
            key = model.bundle.digest, name
            if key not in self._buckets:
                self._buckets[key] = Buckets(model.reference["predictions"].get(name, {}))
            for bucket, count in self._buckets[key].count(values).items():
                names = name, bucket, model.version, model.variant
                self.metrics.predicted(*names).inc(count)

    def _inputs(self, events: list[PredictionEvent]) -> list[str | None]:
        """What is kept of what was asked."""
        if self.settings.log_inputs == "none":
            return [None] * len(events)
        share = self.settings.log_sample if self.settings.log_inputs == "sampled" else 1
        return [_items(event.body) if random() < share else None for event in events]

    def _enqueue(self, rows: list[PredictionRow]) -> None:
        most = self.settings.log_megabytes * 2**20
        lost = 0
        with self._work:
            for row in rows:
                if len(self._rows) >= self.settings.log_rows or self._bytes >= most:
                    lost += 1
                    continue
                self._rows.append(row)
                self._bytes += _size(row)
            self._work.notify_all()
        if lost:
            self.metrics.log_lost("full").inc(lost)

    def _digest_often(self) -> None:
        while True:
            self._wake.wait(self.settings.log_seconds)
            self._wake.clear()
            ends = self._stopping
            self.digest()
            if ends:
                return

    def _write_often(self) -> None:
        failures, due, ready = 0, time.monotonic() + FIRST_PRUNE_SECONDS, False
        while True:
            with self._work:
                self._work.wait_for(lambda: self._rows or self._ends(), PRUNE_SECONDS)
                if not self._rows and self._ends():
                    break
                rows = [self._rows.popleft() for _ in range(min(TRANSACTION_ROWS, len(self._rows)))]
                self._bytes -= sum(map(_size, rows))
                self._in_flight = len(rows)
            try:
                if not ready:
                    self.database.migrate()
                    gc.freeze()  # the database's library: a look at all of it takes 12 ms
                    ready = True
                self._write(rows)
                failures = 0
                if time.monotonic() > due:
                    due = time.monotonic() + PRUNE_SECONDS
                    self._prune()
            except Exception as error:  # the rows go back and wait; nobody else notices
                self._failed(rows, error, failures)
                time.sleep(
                    RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                    if not self._stopping
                    else 0.2
                )
                failures += 1
            finally:
                with self._work:
                    self._in_flight = 0
                    self._work.notify_all()
        self.database.close()

    def _ends(self) -> bool:
        return self._stopping and not self._digester.is_alive()

    def _write(self, rows: list[PredictionRow]) -> None:
        from ..store.database import RowsRejected
        from ..store.write import insert_predictions

        try:
            self.metrics.log_rows.inc(insert_predictions(self.database, rows))
        except RowsRejected as error:
            if len(rows) > 1:  # only those that the database cannot take are lost
                for row in rows:
                    self._write([row])
                return
            self.metrics.log_lost("refused").inc()
            fields = {"reason": str(error), "request_id": rows[0].request_id}
            logger.error("prediction log lost a row", extra={"fields": fields})

    def _prune(self) -> None:
        from ..store.write import prune_log

        now, day = time.time(), 86400
        jump = now - time.monotonic() - self._ahead
        self._ahead += jump
        if abs(jump) > JUMP_SECONDS:  # a clock that went wrong must not make rows look old
            fields = {"seconds": round(jump)}
            logger.warning("the clock jumped, nothing is forgotten now", extra={"fields": fields})
            return
        before = now - self.settings.log_days * day
        prune_log(self.database, before, now - self.settings.input_days * day)

    def _failed(self, rows: list[PredictionRow], error: Exception, failures: int) -> None:
        self.metrics.log_errors.inc()
        with self._work:
            self._rows.extendleft(reversed(rows))
            self._bytes += sum(map(_size, rows))
            self._in_flight = 0  # they wait again, and are not to be counted twice
        if failures in (0, 10, 100):  # not a line for every try
            fields = {"reason": str(error), "rows_waiting": len(self._rows)}
            logger.error("prediction log cannot be written", extra={"fields": fields})


class Columns(NamedTuple):
    """Values by name, those of all events after each other, and which of them are whose."""

    values: Arrays
    spans: list[tuple[int, int]]

    def texts(self) -> list[str]:
        """For each event the JSON of its values: `{"width": [3, 4]}`."""
        if all(stop - start == 1 for start, stop in self.spans):
            return self._of_single_items()
        cells = {json.dumps(name): _cells(array) for name, array in self.values.items()}
        return [
            "{" + ",".join(f"{n}:[{','.join(c[start:stop])}]" for n, c in cells.items()) + "}"
            for start, stop in self.spans
        ]

    def _of_single_items(self) -> list[str]:
        """The same at a fifth of the time, where every event has one item."""
        rows = [start for start, _ in self.spans]
        columns, forms = [], []
        for name, array in self.values.items():
            numbers = array.dtype.kind not in "USO" and bool(np.isfinite(array).all())
            columns.append(array[rows].tolist() if numbers else _cells(array[rows]))
            quoted = json.dumps(name).replace("%", "%%")
            forms.append(f"{quoted}:[{'%.6g' if numbers else '%s'}]")
        form = "{" + ",".join(forms) + "}"
        return [form % row for row in zip(*columns, strict=True)]


class Buckets:
    """Values of an outcome as few names: labels of a metric must not be without number."""

    def __init__(self, known: dict[str, Any]) -> None:
        """`known`: how the outcome was distributed, from the bundle's reference."""
        counts = known.get("counts", {})
        self.names: set[str] = set()
        self.edges = np.array(known.get("edges", []))
        if isinstance(counts, dict):
            self.names = set(sorted(counts, key=lambda name: -counts[name])[:MAX_BUCKETS])
        shown = [f"{edge:.3g}" for edge in self.edges]
        inner = [f"{low} to {high}" for low, high in pairwise(shown)]
        self.bins = [f"below {shown[0]}", *inner, f"above {shown[-1]}"] if shown else []

    def count(self, values: np.ndarray) -> Counter[str]:
        """How many values are in each bucket."""
        if values.dtype.kind in "USO" or not self.bins:
            names = values.astype(str).tolist()
            return Counter(name if name in self.names else "other" for name in names)
        places = np.searchsorted(self.edges, values, side="right")
        places[values == self.edges[-1]] -= 1  # the largest known value belongs to the last bin
        return Counter(self.bins[place] for place in places.tolist())


def _columns(
    events: list[PredictionEvent],
    arrays: Callable[[BatchResult], Arrays],
    measure: Callable[[Arrays], Arrays],
) -> Columns:
    """What `measure` says of the batches that the events were in: few calls for many events."""
    by_shape: dict[object, dict[int, BatchResult]] = {}
    for number, ran in {id(event.answer.ran): event.answer.ran for event in events}.items():
        shape = tuple(array.shape[1:] for array in arrays(ran).values())
        by_shape.setdefault(shape, {})[number] = ran
    found: dict[str, list[np.ndarray]] = {}
    first: dict[int, int] = {}  # row of a batch
    rows = 0
    for rans in by_shape.values():
        parts = [arrays(ran) for ran in rans.values()]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for name, values in measure(whole).items():
            found.setdefault(name, []).append(np.asarray(values))
        for number, ran in rans.items():
            first[number] = rows
            rows += ran.items
    spans = []
    for event in events:
        answer = event.answer
        start = first[id(answer.ran)]
        spans.append((start + answer.start, start + answer.stop))
    return Columns({name: np.concatenate(parts) for name, parts in found.items()}, spans)


def _cells(array: np.ndarray) -> list[str]:
    """Each value as JSON, numbers with the digits that a reference keeps."""
    if array.dtype.kind in "USO":
        return [_quoted(value) for value in array.tolist()]
    return [f"{x:.6g}" if math.isfinite(x) else "null" for x in array.tolist()]


_quoted = lru_cache(1024)(json.dumps)


def _items(body: bytes) -> str:
    """The list of items in a body that is known to be an object with nothing else in it."""
    if body.count(b'"items"') > 1 or b"\\" in body:  # the name may stand twice: the last counts
        return json.dumps(json.loads(body)["items"])
    return body[body.index(b"[") : body.rindex(b"]") + 1].decode()


def _size(row: PredictionRow) -> int:
    return 300 + len(row.input or "") + len(row.output) + len(row.features) + len(row.outcomes)
