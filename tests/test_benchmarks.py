"""The arithmetic of benchmarks/serving; no server is started here."""

import measure
import overload
import pytest
import report
import servers
from measure import Plan, Point

STAT = "cpu  100 20 30 4000 500 6 7 8 90 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n"
RIGHT = {"0": 0.25, "1": 0.75}


def point(requests: int = 100, failed: int = 0, other_cores: float = 0.1) -> Point:
    return Point(requests, failed, 1.0, 1.0, 2.0, 0.5, 0.4, other_cores, None)


def answer(label: str = "1", **shares: float) -> dict:
    known = RIGHT | {name.strip("_"): value for name, value in shares.items()}
    prediction = {"label": label, "probability": known[label], "probabilities": known}
    return {"predictions": [prediction]}


def test_the_line_of_the_load_is_found_among_the_rest() -> None:
    assert measure.parse('Running 1s test\n{"requests": 5}\n') == {"requests": 5}


@pytest.mark.parametrize("output", ["unable to connect", '{"requests": 1}\n{"requests": 2}'])
def test_a_load_that_did_not_run_ends_the_program(output: str) -> None:
    with pytest.raises(SystemExit, match="wrk failed"):
        measure.parse(output)


def test_waiting_and_idling_are_not_busy_and_guests_count_once() -> None:
    assert measure.parse_busy(STAT) == 100 + 20 + 30 + 6 + 7 + 8


def test_a_load_counts_only_when_all_was_answered_on_a_quiet_machine() -> None:
    limit = Plan().others
    assert point().counts(limit)
    assert not point(requests=0).counts(limit)
    assert not point(failed=1).counts(limit)
    assert not point(other_cores=0.21).counts(limit)


@pytest.mark.parametrize(("others", "tried"), [([0.1], 1), ([0.5, 0.1], 2), ([0.5] * 9, 4)])
def test_a_disturbed_load_is_repeated_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, others: list[float], tried: int
) -> None:
    coming = iter(others)
    monkeypatch.setattr(measure, "once", lambda *_: point(other_cores=next(coming)))
    found = measure.point(None, 1, Plan(tries=4))  # pyright: ignore[reportArgumentType]
    assert [one.other_cores for one in found] == others[:tried]


def test_ratios_are_taken_within_rounds_that_both_have() -> None:
    assert report.ratios({0: 10.0, 1: 30.0, 2: 5.0}, {1: 10.0, 0: 5.0, 3: 1.0}) == [2.0, 3.0]


def test_disturbed_loads_are_in_no_median() -> None:
    rows = [
        {"round": r, "server": server, "kept": kept, "rps": rps}
        for r, server, kept, rps in [
            (0, "ours", True, 8.0),
            (0, "peer", True, 2.0),
            (1, "ours", True, 900.0),
            (1, "peer", False, 1.0),
        ]
    ]
    assert report.compare(report.kept(rows), "rps", "peer") == 4.0
    assert report.compare(report.kept(rows[2:]), "rps", "peer") is None


def test_the_report_of_a_part_is_about_that_part_alone() -> None:
    raw: report.Raw = {"rounds": 1, "seconds": 1, "cores": 2, "machine": "m", "date": "d"}
    raw |= {"points": [], "alone": [], "versions": {}, "sizes": {"ours": 150.0, "hello": 50.0}}
    start = {"round": 0, "model": "tiny", "memory": 90.0}
    raw["starts"] = [
        {**start, "server": "ours", "cold_start": 0.5},
        {**start, "server": servers.HELLO, "cold_start": 0.25},
    ]
    lines = report.summary(raw)
    assert f"| ours ÷ | {servers.HELLO} |" in lines
    assert {"| cold start | 2 |", "| environment | 3 |"} <= set(lines)
    assert f"| cold start ÷ {servers.HELLO} | ≤ 1.3 | 2 | **no** |" in lines


def test_the_cost_of_features_is_the_median_difference_of_rounds() -> None:
    spent = {"1": {"nothing": [50.0, 61.0, 70.0], "log": [0.0] * 3, "all": [40.0, 50.0, 61.0]}}
    assert report.cost(spent) == {"1": 10.0}


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0512, "0.0512"), (12.345, "12.3"), (1234.5, "1,234")]
)
def test_numbers_are_shown_with_three_figures(value: float | None, text: str) -> None:
    assert report.number(value) == text


def test_a_percentile_is_a_value_of_the_list() -> None:
    assert overload.percentile([float(x) for x in range(100)], 0.99) == 99
    assert overload.percentile([], 0.5) is None


def test_goodput_counts_what_was_accepted_in_time() -> None:
    outcomes = [
        overload.Outcome(status, milliseconds, end)
        for status, milliseconds, end in [(200, 5, 1), (200, 90, 3), (503, 2, 1), (0, 9, 9)]
    ]
    found = overload.measured(outcomes, peak=4.0, seconds=2.0)
    assert (found["goodput"], found["accepted_p99"], found["refused_p50"]) == (0.5, 90, 2)
    assert found["statuses"] == {"0": 1, "200": 2, "503": 1}


def test_a_right_answer_is_right_in_both_forms() -> None:
    assert servers.wrong(answer(), RIGHT) is None
    assert servers.wrong(answer()["predictions"], RIGHT) is None
    assert servers.wrong({"hello": "world"}, {"hello": "world"}) is None


@pytest.mark.parametrize(
    "given",
    [answer(_1=0.7502), answer("0"), answer(_2=0.0), "500: oops", {"predictions": []}, None],
)
def test_a_wrong_answer_is_told(given: object) -> None:
    assert servers.wrong(given, RIGHT)
