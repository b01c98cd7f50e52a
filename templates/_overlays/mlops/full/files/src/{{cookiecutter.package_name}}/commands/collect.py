"""Move predictions from the server's spool to the database."""

import signal
import sys
import threading
from argparse import SUPPRESS, Namespace
from functools import partial

from ..config import UserError, WorkError, load_settings
from ..serving.wiring import ServerSettings
from . import common


def register(group: common.CommandGroup) -> None:
    table = common.settings_table(ServerSettings)
    parser = group.add(run_collect, "--once", "database_url=sqlite:///other.db", notes=table)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="see below")
    parser.add_argument("--once", action="store_true", help="write what is there and end")
    parser.add_argument("--with-server", action="store_true", help=SUPPRESS)


def run_collect(options: Namespace) -> None:
    """Write the server's predictions from the spool to the database.

    `serve` runs this beside the server. Run it yourself to write what a stopped server left behind
    (--once), or in a container of its own that shares the spool. It also records feedback, deletes
    old rows, and measures drift and quality for /metrics. Ctrl-C ends it; nothing is lost.
    """
    from ..serving.collector import Collector
    from ..serving.logs import configure_logs
    from ..store.spool import waiting

    # 1. The database and the spool
    read_settings = partial(load_settings, ServerSettings, overrides=options.settings)
    settings = read_settings()
    if settings.database_url == "none":
        raise UserError("database_url is none: there is no prediction log to collect for")
    configure_logs(settings.log_level, "collector")
    collector, ended = Collector(settings, read_settings), threading.Event()
    # 2. What ends it
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    if options.with_server:
        threading.Thread(target=_await_server, args=[ended], daemon=True).start()
    if options.once:
        if not collector.reader.lock():
            raise WorkError(f"{collector.folder}: another collector, a server's, reads the spool")
        ended.set()
    # 3. Collect.
    collector.run(ended)
    if options.once and collector.problem:
        rows = waiting(collector.folder).rows
        raise WorkError(f"{collector.problem}; {rows} predictions wait in {collector.folder}")
    if options.once:
        print(f"{collector.written} predictions written from {collector.folder}")


def _await_server(ended: threading.Event) -> None:
    sys.stdin.buffer.read()  # its end closes the pipe, whatever ended it
    ended.set()
