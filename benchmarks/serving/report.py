"""From raw rounds to ratios, medians and the page."""

import json
import os
import platform
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from environments import BUILD, OURS, TEMPLATE
from servers import HELLO, ONNX, PLAIN, SERVERS

PAGE = TEMPLATE / "docs" / "benchmarks.md"
CONNECTIONS = (1, 16, 64)
MODELS = {"tiny": "tiny", "heavy": "heavier"}
TIMES = {
    "peak": "peak, requests/s",
    "peak_load_cores": "cores that wrk uses at the peak",
    "flood_load_cores": "cores that the flood's script uses",
    "accepted_p50": "accepted, p50 ms",
    "accepted_p99": "accepted, p99 ms",
    "refused_p50": "503, p50 ms",
    "refused_p99": "503, p99 ms",
}
Rows = list[dict[str, Any]]
Raw = dict[str, Any]  # points, starts, alone: rows; sizes, versions: by family
# requests/s ÷ peer at 1, 16 and 64 connections, tiny model
RATES = {PLAIN: (3.5, 12, 18), ONNX: (1.2, 3.5, 4), HELLO: (0.85, 1.2, 1.5)}


def kept(rows: Rows) -> Rows:
    """The points that count."""
    return [row for row in rows if row["kept"]]


def by_round(rows: Rows, key: str, **where: Any) -> dict[int, float]:
    """A figure by round, of the rows that fit."""
    fit = [row for row in rows if all(row.get(name) == value for name, value in where.items())]
    return {row["round"]: row[key] for row in fit}


def ratios(ours: dict[int, float], peer: dict[int, float]) -> list[float]:
    """Ours ÷ the peer's, in every round that has both."""
    return [ours[number] / peer[number] for number in ours if peer.get(number)]


def middle(values: Iterable[float]) -> float | None:
    """The median, None of nothing."""
    found = list(values)
    return statistics.median(found) if found else None


def compare(rows: Rows, key: str, peer: str, **where: Any) -> float | None:
    """The median over the rounds of ours ÷ the peer's."""
    ours = by_round(rows, key, server=OURS, **where)
    return middle(ratios(ours, by_round(rows, key, server=peer, **where)))


def number(value: float | None) -> str:
    """Three significant figures, all digits before the point."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table, all but its first column to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def ratio_table(raw: Raw) -> list[str]:
    """What ours is of each other server, in everything that was measured."""
    points, seen = kept(raw["points"]), {row["server"] for row in raw["starts"]}
    others = [server for server in SERVERS[1:] if server.name in seen]
    peers = [server.name for server in others]
    rows = []
    for key, title in (("rps", "requests/s"), ("p99", "p99"), ("cpu_ms", "CPU per request")):
        for model in MODELS:
            for connections in CONNECTIONS:
                where = {"model": model, "connections": connections}
                cells = [number(compare(points, key, peer, **where)) for peer in peers]
                rows.append([f"{title}, {MODELS[model]}, {connections}", *cells])
    for key, title in (("cold_start", "cold start"), ("memory", "memory")):
        cells = [number(compare(raw["starts"], key, peer, model="tiny")) for peer in peers]
        rows.append([title, *cells])
    sizes = [raw["sizes"][OURS] / raw["sizes"][server.family] for server in others]
    rows.append(["environment", *map(number, sizes)])
    return table(["ours ÷", *peers], rows)


def absolute_table(raw: Raw, model: str) -> list[str]:
    """The medians of every server."""
    points, rows = kept(raw["points"]), []
    for server in SERVERS:
        one = {"model": model, "server": server.name}
        cells = [
            " / ".join(
                number(middle(by_round(points, key, **one, connections=connections).values()))
                for connections in CONNECTIONS
            )
            for key in ("rps", "p50", "p99", "cpu_ms")
        ]
        cold, memory = (
            middle(by_round(raw["starts"], key, **one).values()) for key in ("cold_start", "memory")
        )
        if cold is not None:
            size = raw["sizes"][server.family]
            rows.append([server.name, *cells, number(cold), number(memory), number(size)])
    head = [
        "requests/s",
        "p50, ms",
        "p99, ms",
        "CPU ms/request",
        "start, s",
        "MB",
        "environment MB",
    ]
    return table([f"{MODELS[model]} model, 1 / 16 / 64", *head], rows)


def goals(raw: Raw) -> list[tuple[str, str, float | None, bool]]:
    """(what, goal, reached, met) of everything that was aimed at."""
    points, starts = kept(raw["points"]), raw["starts"]
    found: list[tuple[str, str, float | None, bool]] = []

    def add(what: str, limit: float, value: float | None, least: bool = False) -> None:
        met = value is not None and (value >= limit if least else value <= limit)
        found.append((what, f"{'≥' if least else '≤'} {limit:g}", value, met))

    for peer, limits in RATES.items():
        for connections, limit in zip(CONNECTIONS, limits, strict=True):
            value = compare(points, "rps", peer, model="tiny", connections=connections)
            add(f"requests/s ÷ {peer}, tiny, {connections}", limit, value, least=True)
    value = compare(points, "p99", PLAIN, model="tiny", connections=64)
    add(f"p99 ÷ {PLAIN}, tiny, 64", 0.05, value)
    file = BUILD / "overhead.json"
    costs = cost(json.loads(file.read_text())["spent"]) if file.exists() else {}
    for flight, limit in ((1, 15), (16, 7)):
        value = costs.get(str(flight))
        add(f"log, metrics, routing, request id: CPU µs per request, {flight}", limit, value)
    add(f"cold start ÷ {HELLO}", 1.3, compare(starts, "cold_start", HELLO, model="tiny"))
    memory = middle(by_round(starts, "memory", server=OURS, model="tiny").values())
    add("memory, MB", 100, memory)
    add("serving environment, MB", 200, raw["sizes"][OURS])
    for connections in CONNECTIONS[1:]:
        where = {"model": "heavy", "connections": connections}
        for key, title, worse in (("rps", "requests/s", min), ("p99", "p99", max)):
            peers = [server.name for server in SERVERS[1:] if server.models]
            cells = [compare(points, key, peer, **where) for peer in peers]
            value = worse(cells) if None not in cells else None  # pyright: ignore
            add(f"{title} ÷ the best peer, heavier, {connections}", 1, value, key == "rps")
        rates = by_round(points, "rps", server=OURS, **where)
        load = by_round(points, "load_cores", server=OURS, **where)
        alone, cores = by_round(raw["alone"], "rate", model="heavy"), raw["cores"]
        left = {key: alone[key] * (1 - load[key] / cores) for key in rates if key in alone}
        what = f"requests/s ÷ ONNX Runtime alone on the cores left, heavier, {connections}"
        add(what, 0.9, middle(ratios(rates, left)), least=True)
    return found


def summary(raw: Raw) -> list[str]:
    """Everything, as Markdown."""
    points, count = raw["points"], len(kept(raw["points"]))
    wanted = len(
        {(row["round"], row["model"], row["server"], row["connections"]) for row in points}
    )
    steady = by_round(kept(points), "p99", server=OURS, model="tiny", connections=64).values()
    logged = [row["logged"] for row in points if row["logged"] is not None]
    item = {name: middle(by_round(raw["alone"], "ms", model=name).values()) for name in MODELS}
    failed = sorted({row["server"] for row in points if row["failed"]})
    notes = [
        f"{raw['rounds']} rounds of {raw['seconds']} s on {raw['machine']}, {raw['date']}.",
        f"{len(points)} loads for {wanted} points, of which {count} count.",
        f"One item on one core: {', '.join(f'{n} {number(v)} ms' for n, v in item.items())}.",
        *([f"Requests failed at: {', '.join(failed)}."] if failed else []),
        *([f"Our p99, tiny, 64: {min(steady):.3g} to {max(steady):.3g} ms."] if steady else []),
        *([f"Rows of our log per request: at least {min(logged):.3f}."] if logged else []),
    ]
    rows = [
        [what, goal, number(value), "–" if value is None else "yes" if met else "**no**"]
        for what, goal, value, met in goals(raw)
    ]
    return [
        " ".join(notes),
        "",
        *ratio_table(raw),
        "",
        *table(["Goal (the last number is that of connections)", "", "reached", "met"], rows),
        "",
        *(line for model in MODELS for line in [*absolute_table(raw, model), ""]),
        *(f"- {family}: {found}" for family, found in raw["versions"].items()),
    ]


def cost(spent: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """CPU microseconds per request of all features together, by requests in flight."""
    found = {}
    for flight, variants in spent.items():
        everything, *_, nothing = variants.values()
        pairs = zip(everything, nothing, strict=True)
        found[flight] = statistics.median(one - other for one, other in pairs)
    return found


def overhead(raw: dict[str, Any]) -> list[str]:
    """What the features cost, and where the microseconds go, by requests in flight."""
    spent, profiles = raw["spent"], raw["profiles"]
    flights = list(spent)
    head = [f"{flight} in flight" for flight in flights]
    rows = [
        [f"off: {off}", *(number(statistics.median(spent[flight][off])) for flight in flights)]
        for off in spent[flights[0]]
    ]
    rows.append(["**all of these together**", *map(number, cost(spent).values())])
    collector = [number(statistics.median(raw["collected"][flight])) for flight in flights]
    rows.append(["beside it: the collector, a second process", *collector])
    places = dict.fromkeys(place for flight in flights for place in profiles[flight])
    where = [[f"`{x}`", *(number(profiles[f].get(x)) for f in flights)] for x in places]
    rounds = len(next(iter(spent[flights[0]].values())))
    return [
        f"CPU µs per request, median of {rounds} rounds, {machine()}:",
        "",
        *table(["", *head], rows),
        "",
        *table(["Where they go", *head], where),
    ]


def overload(raw: dict[str, Any]) -> list[str]:
    """What is left at three times the load that saturates the server."""
    rounds = raw["rounds"]
    share = [one["goodput"] / one["peak"] for one in rounds]
    all_cores = raw["cores"]
    left = [
        part * (all_cores - one["peak_load_cores"]) / (all_cores - one["flood_load_cores"])
        for part, one in zip(share, rounds, strict=True)
    ]
    statuses: Counter[str] = Counter()
    for one in rounds:
        statuses.update(one["statuses"])
    rows = [
        [name, number(middle(values)), number(min(values)), number(max(values))]
        for name, values in (("goodput ÷ peak", share), ("the same of the cores left", left))
    ]
    for key, name in TIMES.items():
        values = [one[key] for one in rounds if one[key] is not None]
        rows.append(
            [name, number(middle(values)), *(number(f(values)) for f in (min, max) if values)]
        )
    return [
        f"{len(rounds)} rounds on {machine()}; answers by status: {dict(statuses)}.",
        "",
        *table(["heavier model, three times the peak", "median", "least", "most"], rows),
    ]


def machine() -> str:
    """Processor, cores, memory, system."""
    info = Path("/proc/cpuinfo").read_text()
    name = next((x.partition(":")[2].strip() for x in info.splitlines() if "model name" in x), "")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    system = f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    return f"{name or platform.machine()}, {cores} cores, {memory:.0f} GiB, {system}"


def write(section: str, lines: list[str]) -> None:
    """Replace what stands between the section's markers of the page."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    head, rest = PAGE.read_text(encoding="utf-8").split(begin)
    tail = rest.split(end)[1]
    PAGE.write_text("\n".join([head + begin, *lines, end + tail]), encoding="utf-8")
    print(f"written: {PAGE.relative_to(TEMPLATE)}")
