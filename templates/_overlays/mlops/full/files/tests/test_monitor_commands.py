"""The commands feedback, drift and ab: what they record, print and return."""

import csv
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle import deployment as deployment_folder
from {{ cookiecutter.package_name }}.bundle.deployment import Challenger, Deployment
from {{ cookiecutter.package_name }}.client import Client
from {{ cookiecutter.package_name }}.commands import monitor
from {{ cookiecutter.package_name }}.config import UserError, WorkError, load_settings
from {{ cookiecutter.package_name }}.monitoring import online
from {{ cookiecutter.package_name }}.store.database import Database
from {{ cookiecutter.package_name }}.store.feedback import record_feedback
from {{ cookiecutter.package_name }}.store.feedback_schema import Feedback, read_feedback_file
from {{ cookiecutter.package_name }}.store.write import (
    PredictionRow,
    insert_predictions,
)
from {{ cookiecutter.package_name }}.task.contract import SCORE, GroundTruth, Prediction
from {{ cookiecutter.package_name }}.task.settings import Settings

from .conftest import CONFIG
from .quick import BAD_GROUND_TRUTHS, ground_truths
from .test_store import Answers, answers, feedbacks, score

__all__ = ["answers"]  # a fixture

SINCE = "2026-01-01T00:00:00+00:00"
LOG = "sqlite:///predictions.db"  # the default, in the folder of the test


@pytest.fixture
def log(work: Path) -> Iterator[Database]:
    with closing(Database(LOG)) as database:
        database.migrate()
        yield database


def run(*arguments: str) -> int:
    return cli.main([*arguments, "--config", str(CONFIG)])


def settings() -> Settings:
    return load_settings(Settings, CONFIG, [], {})


def table(path: Path, header: list[str], *rows: list[Any]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def cells(truth: dict[str, Any]) -> list[str]:
    """The fields of a truth as a person writes them into a CSV file."""
    return [value if isinstance(value, str) else json.dumps(value) for value in truth.values()]


def test_feedback_is_read_from_csv_and_json_lines(
    log: Database, answers: Answers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    insert_predictions(log, [answers.row("a"), answers.row("b", items=2)])
    right, wrong = ground_truths(answers.good)
    header = ["request_id", "item", *right]
    rows = [["a", "", *cells(right)], ["b", "1", *cells(right)]]
    file = table(tmp_path / "labels.csv", header, *rows)
    assert run("feedback", file) == 0
    assert capsys.readouterr().out == "2 labels: 2 new, 0 changed, 0 same\n"
    content = [
        {"request_id": "b", "item": 1, "truth": wrong},
        {"request_id": "b", "truth": right},
        {"request_id": "a", "truth": right},
    ]
    lines = tmp_path / "labels.jsonl"
    lines.write_text("\n\n".join(map(json.dumps, content)) + "\n", encoding="utf-8")
    assert run("feedback", str(lines)) == 0
    assert capsys.readouterr().out == "3 labels: 1 new, 1 changed, 1 same\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 1: needs one column 'request_id', found []"),
        ("id,label\n", "row 1: needs one column 'request_id', found ['id', 'label']"),
        ("request_id,label\n", "holds no feedback"),
        ("request_id\nx,5\n", "row 2: has 2 cells, the header has 1"),
        ('request_id\n"x\n', "row 2: is not CSV"),
        ("request_id,item\n,0\n", "row 2, column 'request_id': Field required"),
        ("request_id,item\nx,-1\n", "row 2, column 'item': Input should be greater than or"),
        ("request_id,item\nx,1.5\n", "row 2, column 'item': Input should be a valid integer"),
        ("request_id,sure\n\nx,yes\n", "row 3, column"),
    ],
)
def test_csv_errors_name_row_and_column(
    log: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text, encoding="utf-8")
    assert run("feedback", str(file)) == 2
    assert f"error: {file}: {message}" in capsys.readouterr().err


class Named(BaseModel):
    name: str


@pytest.mark.parametrize(
    "name",
    [
        *("a|b", "<b>x</b>", 'say "x"', "$x_1$", "😀", "a,b;c", "1", "null", " x ", "x" * 200_000),
        *(f"a{mark}b" for mark in ("\u2028", "\u2029", "\x85", "\f", "\v", "\x1c", "\n", "\r\n")),
    ],
)
def test_a_ground_truth_may_hold_any_character(tmp_path: Path, name: str) -> None:
    file = tmp_path / "labels.csv"
    table(file, ["request_id", "name"], ["a", name], ["b", "x"])
    lines = tmp_path / "labels.jsonl"
    content = [{"request_id": "a", "truth": {"name": name}}]
    lines.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in content))
    for path in (file, lines):
        line = read_feedback_file(path, Feedback[Named])[0]
        assert line.feedback.truth.name == name


@pytest.mark.parametrize(("truth", "word"), BAD_GROUND_TRUTHS)
def test_invalid_ground_truth_is_reported_by_row(
    log: Database,
    answers: Answers,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    truth: dict[str, Any],
    word: str,
) -> None:
    insert_predictions(log, [answers.row("a"), answers.row("b")])
    good = ground_truths(answers.good)[0]
    names = list(dict.fromkeys([*good, *truth]))

    def row(name: str, truth: dict[str, Any]) -> list[str]:
        fields = dict(zip(truth, cells(truth), strict=True))
        return [name, *(fields.get(field, "") for field in names)]

    header = ["request_id", *names]
    file = table(tmp_path / "labels.csv", header, row("a", good), row("b", truth))
    lines = tmp_path / "labels.jsonl"
    content = [{"request_id": "a", "truth": good}, {"request_id": "b", "truth": truth}]
    lines.write_text("\n".join(map(json.dumps, content)), encoding="utf-8")
    for path, number in ((file, 3), (str(lines), 2)):
        code = run("feedback", path)
        stderr = capsys.readouterr().err
        if code == 0:  # a CSV cell is text, so what is invalid in JSON may be valid there
            assert path == file
            assert all(isinstance(value, (int, str)) for value in truth.values())
            continue
        assert code == 2
        assert stderr.startswith(f"error: {path}: row {number}")
        assert word in stderr


def test_feedback_with_an_unknown_request_records_nothing(
    log: Database, answers: Answers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    insert_predictions(log, [answers.row("a")])
    right = ground_truths(answers.good)[0]
    rows = [["a", *cells(right)], ["nobody", *cells(right)]]
    file = table(tmp_path / "labels.csv", ["request_id", *right], *rows)
    assert run("feedback", file) == 2
    assert f"{file}: row 3: 'nobody' is not in the prediction log" in capsys.readouterr().err
    assert list(online.queries.read_scored(log, answers.bundle.contract)) == []


def test_error_in_a_long_file_says_how_much_is_recorded(
    log: Database,
    answers: Answers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(monitor, "FEEDBACK_BATCH", 2)
    insert_predictions(log, [answers.row(name) for name in "abc"])
    right = ground_truths(answers.good)[0]
    rows = [[name, *cells(right)] for name in ("a", "b", "c", "nobody")]
    file = table(tmp_path / "labels.csv", ["request_id", *right], *rows)
    assert run("feedback", file) == 2
    assert f"everything before row 4 of {file} is recorded" in capsys.readouterr().err
    assert len(online.queries.read_labelled(log)) == 2
    file = table(tmp_path / "labels.csv", ["request_id", *right], *rows[:3])
    assert run("feedback", file) == 0
    assert capsys.readouterr().out == "3 labels: 1 new, 0 changed, 2 same\n"


class Receiver(BaseHTTPRequestHandler):
    """Keep what is sent, respond as set."""

    sent: list[tuple[str, Any, str | None]]
    ports: list[int]  # of the callers' ends of the connections
    response: tuple[int, dict[str, Any]]

    def do_POST(self) -> None:
        type(self).ports.append(self.client_address[1])
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).sent.append((self.path, json.loads(body), self.headers["x-api-key"]))
        status, content = type(self).response
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to the terminal."""


@pytest.fixture
def receiver() -> Iterator[tuple[type[Receiver], str]]:
    kind = type("OneReceiver", (Receiver,), {"sent": [], "ports": [], "response": (200, {})})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield kind, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_feedback_with_url_is_sent_to_that_server(
    receiver: tuple[type[Receiver], str],
    answers: Answers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("APP_API_KEYS", raising=False)
    kind, url = receiver
    right = ground_truths(answers.good)[0]
    file = table(tmp_path / "labels.csv", ["request_id", *right], ["a", *cells(right)])
    kind.response = 200, {"request_id": "x", "new": 1, "changed": 0, "same": 0}
    assert run("feedback", file, "--url", url) == 0
    assert capsys.readouterr().out == "1 labels: 1 new, 0 changed, 0 same\n"
    ((path, content, key),) = kind.sent
    assert (path, key) == ("/v1/feedback", None)
    assert [Feedback[GroundTruth].model_validate(one) for one in content["feedback"]] == feedbacks(
        answers, ("a", 0)
    )
    kind.response = 404, {"detail": [{"msg": "'a' is no request of the log"}]}
    monkeypatch.setenv("APP_API_KEYS", "sha256:0, first, second")
    assert run("feedback", file, "--url", url) == 1
    assert kind.sent[-1][2] == "first"
    stderr = capsys.readouterr().err
    assert "returned 404" in stderr
    assert "'a' is no request" in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_server_on_this_machine_is_called_without_a_proxy(
    receiver: tuple[type[Receiver], str], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    kind, url = receiver
    kind.response = 200, {"sum": 1}
    with Client(url.replace("127.0.0.1", host) + "/") as client:
        assert client.post("/v1/first", {}) == {"sum": 1}
        assert client.post("/v1/second", {}) == {"sum": 1}
    assert [path for path, _, _ in kind.sent] == ["/v1/first", "/v1/second"]


def test_client_keeps_one_connection_open(receiver: tuple[type[Receiver], str]) -> None:
    kind, url = receiver
    kind.protocol_version = "HTTP/1.1"
    with Client(url) as client:
        client.post("/v1/first", {})
        client.post("/v1/second", {})
        client.close()
        client.post("/v1/third", {})
    assert len(kind.sent) == 3
    assert len(set(kind.ports)) == 2


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://127.0.0.1:99999"])
def test_invalid_url_is_a_user_error(url: str) -> None:
    with pytest.raises(UserError, match=f"--url {url}: "):
        Client(url)


def reference_rows(
    answers: Answers, count: int, shift: bool = False, **changes: Any
) -> list[PredictionRow]:
    """Draw rows from the bundle's reference, or from far outside it with `shift`."""
    folder, _ = deployment_folder.champion_path(Path("deployment"))
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    random = np.random.default_rng(0)

    def values(feature: dict[str, Any]) -> list[Any]:
        if "edges" in feature:
            sample = np.array(feature["sample"])
            away = 3 * (np.ptp(sample) + 1) if shift else 0
            return (random.choice(sample, count) + away).tolist()
        names, counts = list(feature["counts"]), np.array(list(feature["counts"].values()))
        chosen = random.choice(names, count, p=counts / counts.sum()).tolist()
        return ["never seen"] * count if shift else chosen

    sides = {
        "features": {name: values(feature) for name, feature in reference["features"].items()},
        "outcomes": {name: values(feature) for name, feature in reference["predictions"].items()},
    }
    return [
        answers.row(f"{shift}-{number}", at=1000.0 + number, **changes)._replace(
            **{
                side: json.dumps({name: [column[number]] for name, column in columns.items()})
                for side, columns in sides.items()
            }
        )
        for number in range(count)
    ]


def test_drift_returns_exit_code_3_when_it_finds_drift(
    log: Database, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    insert_predictions(log, reference_rows(answers, 400))
    assert run("drift") == 0
    stdout = capsys.readouterr().out
    assert "400 items" in stdout
    assert "no drift found" in stdout
    assert Path("docs/experiments/drift.png").read_bytes().startswith(b"\x89PNG")

    moved = [row._replace(at=5000.0) for row in reference_rows(answers, 400, shift=True)]
    insert_predictions(log, moved)
    assert run("drift", "--rows", "400", "--picture", "other/moved.png") == 3
    stdout = capsys.readouterr().out
    for name in [*answers.features, *(f"answer: {name}" for name in answers.outcomes)]:
        assert f"| {name} |" in stdout
    drifted = stdout.splitlines()[-1].removeprefix("drifted: ").split(", ")
    assert set(drifted) & set(answers.features)
    assert any(name.startswith("answer: ") for name in drifted)
    assert Path("other/moved.png").read_bytes().startswith(b"\x89PNG")


def test_drift_without_matplotlib_gives_the_verdict_and_says_what_is_missing(
    log: Database,
    answers: Answers,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    insert_predictions(log, reference_rows(answers, 400))
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as in the server's image
    monkeypatch.delitem(sys.modules, f"{cli.__package__}.experiments.drift_plot", raising=False)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    assert run("drift") == 0
    stdout = capsys.readouterr().out
    assert "not drawn: matplotlib" in stdout
    assert "no drift found" in stdout


def test_drift_on_too_few_rows_gives_no_verdict(
    log: Database, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    insert_predictions(log, reference_rows(answers, 99, shift=True))
    assert run("drift") == 0
    assert "too few to judge: at least 100 are needed" in capsys.readouterr().out
    assert not Path("docs/experiments/drift.png").exists()
    assert run("drift", "--rows", "99") == 2
    assert "error: --rows 99: at least 100 are needed" in capsys.readouterr().err


def test_drift_uses_the_rows_of_one_version(
    log: Database, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    insert_predictions(log, reference_rows(answers, 150, shift=True, model_version="other"))
    assert run("drift") == 0
    assert "too few" in capsys.readouterr().out
    assert run("drift", "--version", "other") == 2
    assert f"there are {answers.bundle.version}" in capsys.readouterr().err
    challenge(answers, "shadow", version="other")
    assert run("drift", "--version", "other") == 3


@pytest.mark.parametrize("command", ["drift", "ab", "feedback"])
def test_missing_deployment_or_database_is_one_line_and_exit_code_1(
    log: Database,
    answers: Answers,
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    challenge(answers, "split")
    right = ground_truths(answers.good)[0]
    file = table(tmp_path / "labels.csv", ["request_id", *right], ["a", *cells(right)])
    arguments = [file] if command == "feedback" else []
    (tmp_path / "file").touch()
    for setting in ("paths.deployment=nowhere", f"live.database=sqlite:///{tmp_path}/file/log"):
        assert run(command, *arguments, setting) == 1
        stderr = capsys.readouterr().err
        assert stderr.startswith("error: ")
        assert stderr.count("\n") == 1


def challenge(
    answers: Answers, mode: Any, share: float = 0.5, version: str = "challenger"
) -> Deployment:
    """Deploy the champion's bundle a second time, as challenger."""
    folder = Path("deployment")
    before = deployment_folder.read_deployment(folder)
    challenger = Challenger(
        **{**before.champion.model_dump(), "version": version}, mode=mode, share=share, since=SINCE
    )
    after = before.model_copy(update={"challenger": challenger})
    deployment_folder.write_deployment(folder, after)
    return after


def log_ab_traffic(
    log: Database, answers: Answers, test: str | None, good: Callable[[str], bool]
) -> None:
    """Log 200 callers, half for the challenger; `good` says whose predictions are right."""
    rows = [
        answers.row(
            f"{variant}{number}",
            variant=variant,
            test=test,
            unit=f"{variant}{number}",
            good=good(variant),
            at=float(number),
            milliseconds=number / 10,
        )
        for variant in ("champion", "challenger")
        for number in range(100)
    ]
    insert_predictions(log, rows)
    record_feedback(log, feedbacks(answers, *((row.request_id, 0) for row in rows)), score(answers))


def test_ab_without_a_challenger_says_so(
    work: Path, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ab") == 0
    assert f"{answers.bundle.version} has no challenger" in capsys.readouterr().out


def test_ab_without_traffic_keeps_going(
    log: Database, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode, counted in (("split", "callers"), ("shadow", "mirrored requests with a label")):
        log_ab_traffic(log, answers, challenge(answers, mode, 0.25).test, lambda _: True)
        challenge(answers, mode)
        assert run("ab") == 0
        stdout = capsys.readouterr().out
        assert "no request of this test" in stdout
        assert "keep going: at least 50 units" in stdout
        assert ("mirrored to it" in stdout) == (mode == "shadow")
        assert counted in stdout.splitlines()[-2]


@pytest.mark.parametrize(
    ("better", "decision", "next_command"),
    [("challenger", "promote", " promote"), ("champion", "stop", " rollback")],
)
def test_ab_verdict_favours_the_better_variant(
    log: Database,
    answers: Answers,
    capsys: pytest.CaptureFixture[str],
    better: str,
    decision: str,
    next_command: str,
) -> None:
    deployed = challenge(answers, "split")
    log_ab_traffic(log, answers, deployed.test, lambda variant: variant == better)
    assert run("ab") == 0
    stdout = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in stdout.splitlines() if line}
    for side in ("champion", "challenger"):
        assert rows[side][1:7] == ["100", "100", "100", "100", "5.00", "9.80"]
    assert rows["variant"][-1] == SCORE.name
    assert rows["champion"][-1] != rows["challenger"][-1]
    assert f"\n{decision}: " in stdout
    assert next_command in stdout.splitlines()[-1]
    assert run("ab", "ab.least_units=101", "--effect", "0.1") == 0
    stdout = capsys.readouterr().out
    assert "keep going: at least 101 units" in stdout
    assert "a gain of 0.1 needs about " in stdout
    assert run("ab", "ab.least_units=101") == 0
    assert "finds with a power of 80 % a gain of " in capsys.readouterr().out
    assert run("ab", "--effect", "0") == 2


def test_ab_with_all_traffic_on_the_challenger_fails(log: Database, answers: Answers) -> None:
    deployed = challenge(answers, "split", 1.0)
    with pytest.raises(WorkError, match="nothing to compare"):
        online.measure_ab_test(settings(), deployed)


def test_shadow_is_compared_on_requests_that_both_answered(log: Database, answers: Answers) -> None:
    deployed = challenge(answers, "shadow", 0.5)
    own = [answers.row(f"r{n}", test=deployed.test, unit=f"u{n}", good=False) for n in range(80)]
    shadows = [
        answers.row(f"r{n}", variant="shadow", test=deployed.test, unit=f"u{n}") for n in range(80)
    ]
    # Answered by the champion alone, and well: these must not count.
    alone = [answers.row(f"s{n}", test=deployed.test, unit=f"v{n}") for n in range(80)]
    insert_predictions(log, [*own, *shadows, *alone])
    keys = [(f"{kind}{n}", 0) for kind in "rs" for n in range(80)]
    record_feedback(log, feedbacks(answers, *keys), score(answers))

    arms, verdict = online.measure_ab_test(settings(), deployed)

    assert [(arm.traffic.variant, arm.labels) for arm in arms] == [
        ("champion", 160),
        ("shadow", 80),
    ]
    assert verdict.decision == "promote"
    assert verdict.champion_units == verdict.challenger_units == 80
    good, bad = (score(answers)(prediction(answers, side), answers.truth) for side in (True, False))
    assert verdict.difference == pytest.approx(abs(good - bad))


def prediction(answers: Answers, good: bool) -> Any:
    return Prediction.model_validate(answers.good if good else answers.bad)


def test_online_quality_is_compared_with_the_test_split(log: Database, answers: Answers) -> None:
    log_ab_traffic(log, answers, None, lambda variant: variant == "champion")
    contract, version = answers.bundle.contract, answers.bundle.version
    good, bad = (score(answers)(prediction(answers, side), answers.truth) for side in (True, False))
    manifest = answers.bundle.manifest.model_copy(update={"metrics": {SCORE.name: 0.5}})
    sign = 1 if SCORE.higher_is_better else -1

    rows = {row.variant: row for row in online.measure_quality(log, contract, {version: manifest})}

    assert rows.keys() == {"champion", "challenger"}
    for variant, mean in (("champion", good), ("challenger", bad)):
        row = rows[variant]
        assert row[:3] == (version, variant, SCORE.name)
        assert row.mean == pytest.approx(mean)
        assert (row.labels, row.expected) == (100, 0.5)
        assert row.drop == pytest.approx(sign * (0.5 - mean) / 0.5)
    worse, better = rows["challenger"].drop, rows["champion"].drop
    assert worse is not None
    assert better is not None
    assert worse > better
    (unknown, _) = online.measure_quality(log, contract, {})
    assert (unknown.expected, unknown.drop) == (None, None)
    assert sum(row.labels for row in online.measure_quality(log, contract, {}, rows=30)) == 30
    own = online.measure_quality(log, contract, {version: answers.bundle.manifest})
    assert own[0].expected == answers.bundle.manifest.metrics[SCORE.name]
