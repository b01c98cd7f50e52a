"""Lines about long work where no terminal shows a progress bar, as in CI or a container."""

import sys
import time
from collections.abc import Callable

SECONDS = 10.0  # between two lines


class ProgressLines:
    """Print a line about work that goes on, at most one every `seconds`."""

    def __init__(self, echo: Callable[[str], None] = print, seconds: float = SECONDS) -> None:
        self.echo, self.seconds, self.last = echo, seconds, time.monotonic()

    def __call__(self, text: str) -> None:
        """Print the line, unless a terminal shows a bar or the last line is too recent."""
        now = time.monotonic()
        if now - self.last >= self.seconds and not sys.stderr.isatty():
            self.echo(text)
            self.last = now
