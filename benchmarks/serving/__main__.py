"""How fast the generated project's server is, beside what people use, in one interleaved run.

    python benchmarks/serving [--quick] [--only NAME ...] [--rounds N]
    python benchmarks/serving --overload
    python benchmarks/serving --overhead

Makes the environments and models that it needs (kept in build/bench), starts one server after the
other, checks its answers and loads it with wrk. Writes build/bench/serving.json and, but for a
quick or partial run, the figures of docs/benchmarks.md. Linux only.
"""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import environments
import measure
import report
from environments import BUILD, OURS, PEERS, Model, python
from measure import Plan
from overload import overload
from servers import SERVERS, Server, prepared, running

TURN = 5000  # requests of a turn in the process itself


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of one second: a try")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="servers whose names hold one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--overload", action="store_true", help="three times the load that it takes"
    )
    parser.add_argument("--overhead", action="store_true", help="where the microseconds go")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its server is stopped as well
    if not shutil.which("wrk"):
        print("error: wrk is not there: apt-get install wrk", file=sys.stderr)
        return 2
    named = options.only or [""]
    servers = [one for one in SERVERS if any(name in one.name for name in [OURS, *named])]
    plan = measure.QUICK if options.quick else measure.Plan(rounds=options.rounds)
    if options.overload or options.overhead:
        servers = servers[:1]
    models = prepare(servers)
    section = "overload" if options.overload else "overhead" if options.overhead else "serving"
    if options.overload:
        cores = len(os.sched_getaffinity(0))
        raw = {"cores": cores, "rounds": overload(models[-1], plan.rounds, 2 * plan.seconds)}
        lines = report.overload(raw)
    elif options.overhead:
        raw = overhead(models[0], plan)
        lines = report.overhead(raw)
    else:
        raw = compare(servers, models, plan)
        lines = report.summary(raw)
    whole = not options.quick and not options.only
    # A try must never be taken for a result: the goals read what overhead.json says.
    (BUILD / f"{section}{'' if whole else '-try'}.json").write_text(json.dumps(raw, indent=1))
    print("\n".join(lines))
    if whole:
        report.write(section, lines)
    return 0


def prepare(servers: list[Server]) -> list[Model]:
    """Environments and models, made where they are not there yet."""
    say("baking the project")
    environments.bake()
    for family in sorted({"torch", "onnx", *(server.family for server in servers)}):
        say(f"environment {family}")
        environments.make(family)
    for name in environments.WIDTHS:
        say(f"model {name}")
        environments.model(name)
    return [environments.model(name) for name in environments.WIDTHS]


def compare(servers: list[Server], models: list[Model], plan: Plan) -> report.Raw:
    """All rounds. Each server is started for its turn, and no other runs meanwhile."""
    points: report.Rows = []
    starts: report.Rows = []
    alone: report.Rows = []
    for number in range(plan.rounds):
        for model in models:
            rate, item = onnx_alone(model, plan.seconds)
            alone.append({"round": number, "model": model.name, "rate": rate, "ms": item})
            turn = number % len(servers)
            for server in [*servers[turn:], *servers[:turn]]:
                if server.models or model is models[0]:
                    say(f"round {number + 1} of {plan.rounds}, {model.name}, {server.name}")
                    where = {"round": number, "model": model.name, "server": server.name}
                    start, found = visit(server, model, plan)
                    starts.append(where | start)
                    points += [where | point for point in found]
    families = dict.fromkeys(server.family for server in servers)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": report.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "sizes": {family: environments.megabytes(family) for family in families},
        "versions": {family: environments.versions(family) for family in families},
        "points": points,
        "starts": starts,
        "alone": alone,
    }


def visit(server: Server, model: Model, plan: Plan) -> tuple[dict[str, Any], report.Rows]:
    """Start a server, check it, measure it at each number of connections, stop it."""
    found: report.Rows = []
    with running(server, model) as started:
        started.check()
        target = started.target()
        for connections in report.CONNECTIONS:
            for point in measure.point(target, connections, plan):
                row = {"connections": connections, "kept": point.counts(plan.others)}
                found.append({**row, **dataclasses.asdict(point)})
        started.check()
        memory = measure.memory(started.pid)
    return {"cold_start": started.cold_start, "memory": memory}, found


def onnx_alone(model: Model, seconds: float) -> tuple[float, float]:
    """(items per second on all cores, milliseconds of one item on one core) without a server."""
    command = [python("onnx"), str(PEERS / "onnx_alone.py"), str(seconds)]
    environment = {**os.environ, "MODEL": str(model.folder)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    rate, item = json.loads(done.stdout)
    return rate, item


def overhead(model: Model, plan: Plan) -> dict[str, Any]:
    """What inprocess.py measures, by our server's interpreter."""
    scratch, environment = prepared("overhead", model)
    script = Path(__file__).parent / "inprocess.py"
    command = [python(OURS), str(script), str(model.bodies), str(plan.rounds), str(TURN)]
    done = subprocess.run(
        command, cwd=scratch, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
