"""Commands for the repository: `python scripts/setup.py`, `python -m scripts.standard`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  this interpreter may well be older
    sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0])
