"""Whether the memory that a container may use is enough for its workers."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..bundle.load import MODEL

MIB = 2**20
LIMITS = {"": "memory.max", "memory": "memory.limit_in_bytes"}  # control groups, versions 2 and 1
# Measured (docs/platforms.md): what all processes share, supervisor and collector included, and
# what each worker has for itself; while it loads a model, three times the model's file too.
SHARED_MIB, WORKER_MIB, MODEL_COPIES = 100, 65, 3


def memory_limit(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float:
    """Read how much memory this process's control groups may use, bytes; inf without a limit."""
    limits = [math.inf]
    with suppress(OSError, ValueError):  # another system
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in LIMITS:
                mounted = root / controllers
                folder = mounted / group.lstrip("/")  # in a container possibly the host's: absent
                for place in (folder, *folder.parents):
                    if place.is_relative_to(mounted) and (place / LIMITS[controllers]).exists():
                        text = (place / LIMITS[controllers]).read_text()
                        limits.append(float(text.replace("max", "inf")))
    return min(limits)


def memory_warning(limit: float, workers: int, bundles: Sequence[Path]) -> str | None:
    """Say that `limit` bytes are too few for so many workers that serve these bundles."""
    models = sum((bundle / MODEL).stat().st_size for bundle in bundles) / MIB
    each = WORKER_MIB + MODEL_COPIES * models
    needed = SHARED_MIB + workers * each
    if limit / MIB >= needed:
        return None
    fit = max(1, int((limit / MIB - SHARED_MIB) / each))
    advice = f"set APP_WORKERS={fit} or " if fit < workers else ""
    return (
        f"the memory limit of {limit / MIB:.0f} MiB is too small for APP_WORKERS={workers}, which "
        f"takes about {needed:.0f} MiB: {advice}raise the limit, or workers will be killed"
    )
