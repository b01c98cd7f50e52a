"""Find the modules that source files import, without running them.

`predict` uses it for Python files, so it needs the standard library only.
"""

import ast
import gc
import hashlib
import json
import platform
import sysconfig
import warnings
from contextlib import suppress
from importlib import metadata
from pathlib import Path, PurePath

from ..config import UserError
from ..files import write_text

CACHE_FORMAT = 1  # increase it with every change of the rules, which outdates cached files
TEST_NAMES = {"tests", "test", "testing", "idle_test", "conftest"}
BLOCK_FIELDS = ("body", "orelse", "finalbody", "handlers", "cases")


def modules(source: bytes, package: tuple[str, ...] = ()) -> set[str]:
    """Return the full names of all modules that a source file of this package imports.

    Relative imports are resolved; `__future__` is left out. Raises SyntaxError, ValueError or
    RecursionError if the source is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about other people's code
        waiting: list[ast.AST] = [ast.parse(source)]
    names: set[str] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(_resolve(node, package))
        else:  # imports are statements, so expressions need no look
            for field in BLOCK_FIELDS:
                body = getattr(node, field, None)
                waiting += body if isinstance(body, list) else []
    return names - {"", "__future__"}


def package(path: Path) -> tuple[str, ...]:
    """Return a file's package: its folders as far up as they contain `__init__.py`."""
    names: list[str] = []
    for folder in path.resolve().parents:
        if not (folder / "__init__.py").is_file():
            break
        names.insert(0, folder.name)
    return tuple(names)


def imports_of_libraries(
    libraries: list[str], cache: Path
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return modules by file, and versions, of the standard library and installed libraries.

    Tests are left out. The result is kept in `cache` by the versions. UserError if a library is
    not installed.
    """
    versions = {"python": platform.python_version()}
    for name in sorted(libraries, key=str.lower):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise UserError(f"data.libraries: {name!r} is not installed") from None
    about = {"recipe": CACHE_FORMAT, "versions": versions}
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    path = cache / f"imports-{key[:12]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: read again
        cached = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(cached["files"], dict) and {name: cached[name] for name in about} == about:
            return cached["files"], versions
    files = _parse_sources(_sources(libraries))
    try:
        content = {**about, "files": files}
        write_text(path, json.dumps(content, ensure_ascii=False, indent=0) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror} (data.cache)") from None
    return files, versions


def _resolve(node: ast.ImportFrom, package: tuple[str, ...]) -> str:
    """Return the module of a `from … import`; empty if it is above the package."""
    if not node.level:
        return node.module or ""
    parts = package[: len(package) - node.level + 1] if node.level <= len(package) else ()
    return ".".join([*parts, *([node.module] if node.module and parts else [])])


def _sources(libraries: list[str]) -> list[tuple[str, Path]]:
    """List (name, path) of all source files, in the same order on every machine."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for path in standard.rglob("*.py"):
        name = path.relative_to(standard)
        if name.parts[0] not in ("site-packages", "dist-packages"):
            files.append((f"python/{name.as_posix()}", path))
    for library in libraries:
        distribution = metadata.distribution(library)
        for file in distribution.files or []:
            if file.suffix == ".py" and ".." not in file.parts:
                files.append((file.as_posix(), Path(str(distribution.locate_file(file)))))
    return sorted((name, path) for name, path in files if not _is_test(PurePath(name)))


def _is_test(name: PurePath) -> bool:
    parts = [*name.parts[:-1], name.stem]
    named = any(part in TEST_NAMES or part.startswith("test_") for part in parts)
    return named or name.stem.endswith("_test")


def _parse_sources(sources: list[tuple[str, Path]]) -> dict[str, list[str]]:
    from tqdm import tqdm  # not installed with the server

    files: dict[str, list[str]] = {}
    collecting = gc.isenabled()
    gc.disable()  # syntax trees contain no cycles, and the search for them doubles the time
    try:
        for name, path in tqdm(sources, "reading imports", unit="file", disable=None, leave=False):
            folders = PurePath(name).parts[:-1]
            inside = folders[1:] if folders[:1] == ("python",) else folders
            try:
                files[name] = sorted(modules(path.read_bytes(), inside))
            except (OSError, SyntaxError, ValueError, RecursionError):
                continue  # templates and files for other versions of Python
    finally:
        if collecting:
            gc.enable()
    return files
