"""Which modules source files import, read without running them.

The server imports this module for the files that people ask about: it needs no more than Python.
"""

import ast
import gc
import hashlib
import json
import platform
import sysconfig
import warnings
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from ..config import UserError
from ..files import write_text

RECIPE = 1  # to be raised when the same sources would be read differently
TESTS = {"tests", "test", "testing", "idle_test", "conftest"}
BODIES = ("body", "orelse", "finalbody", "handlers", "cases")


def modules(source: bytes, package: tuple[str, ...] = ()) -> set[str]:
    """The modules that a source file of this package imports anywhere, in full: relative imports
    are resolved. `__future__` is no choice of a module and left out.

    Raises SyntaxError, ValueError or RecursionError for what is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the style of other people's code
        waiting: list[ast.AST] = [ast.parse(source)]
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(_origin(node, package))
        else:  # imports are statements: what holds no statements need not be looked at
            for name in BODIES:
                body = getattr(node, name, None)
                waiting += body if isinstance(body, list) else []
    return found - {"", "__future__"}


def package(path: Path) -> tuple[str, ...]:
    """The package that a file belongs to: its folders as far up as they hold an `__init__.py`."""
    names: list[str] = []
    for folder in path.resolve().parents:
        if not (folder / "__init__.py").is_file():
            break
        names.insert(0, folder.name)
    return tuple(names)


def installed(libraries: list[str], cache: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """(modules by file, version by library) of the standard library and installed libraries.

    Read once and kept in `cache`, by the versions. Without tests. UserError when a library is not
    installed.
    """
    versions = {"python": platform.python_version()}
    for name in sorted(libraries, key=str.lower):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise UserError(f"data.libraries: {name!r} is not installed here") from None
    about = {"recipe": RECIPE, "versions": versions}
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    path = cache / f"imports-{key[:12]}.json"
    kept = _kept(path)
    if kept is None or {name: kept.get(name) for name in about} != about:
        kept = {**about, "files": _read(_sources(libraries))}
        try:
            write_text(path, json.dumps(kept, ensure_ascii=False, indent=0) + "\n")
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror} (data.cache)") from None
    return kept["files"], versions


def _origin(node: ast.ImportFrom, package: tuple[str, ...]) -> str:
    """The module that a `from … import` names; empty when it lies above the package."""
    if not node.level:
        return node.module or ""
    parts = package[: len(package) - node.level + 1] if node.level <= len(package) else ()
    return ".".join([*parts, *([node.module] if node.module and parts else [])])


def _kept(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content["files"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there or damaged: read the sources again


def _sources(libraries: list[str]) -> list[tuple[str, Path]]:
    """(name, path) of each source file, in an order that is the same on every machine."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in standard.rglob("*.py"):
        name = path.relative_to(standard)
        if name.parts[0] not in ("site-packages", "dist-packages"):
            found.append((f"python/{name.as_posix()}", path))
    for library in libraries:
        distribution = metadata.distribution(library)
        for file in distribution.files or []:
            if file.suffix == ".py" and ".." not in file.parts:
                found.append((file.as_posix(), Path(str(distribution.locate_file(file)))))
    return sorted((name, path) for name, path in found if not _is_test(PurePath(name)))


def _is_test(name: PurePath) -> bool:
    parts = [*name.parts[:-1], name.stem]
    if any(part in TESTS or part.startswith("test_") for part in parts):
        return True
    return name.stem.endswith("_test")


def _read(sources: list[tuple[str, Path]]) -> dict[str, list[str]]:
    from tqdm import tqdm  # the server does without

    found: dict[str, list[str]] = {}
    collecting = gc.isenabled()
    gc.disable()  # syntax trees hold no cycles, and looking for some doubles the time
    try:
        for name, path in tqdm(sources, "reading imports", unit="file", disable=None, leave=False):
            folders = PurePath(name).parts[:-1]
            inside = folders[1:] if folders[:1] == ("python",) else folders
            try:
                found[name] = sorted(modules(path.read_bytes(), inside))
            except (OSError, SyntaxError, ValueError, RecursionError):
                continue  # templates and files for other versions of Python
    finally:
        if collecting:
            gc.enable()
    return found
