"""Extract parameters and their types from the documentation of installed libraries.

Sources are parsed, never imported. The numpydoc format lists each parameter as `name : type` with
an indented description; the type gives the label and is removed from the text.
Format: https://numpydoc.readthedocs.io/en/latest/format.html
"""

import ast
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from inspect import cleandoc
from pathlib import Path
from typing import NamedTuple

from ..config import UserError
from ..files import write_text
from .settings import DataSettings
from .texts import SPLIT_NAMES, Corpus, LabelledTexts, split_by_hash

LIMITS = (
    "Rules extract the labels from the documentation's type field: entries that name several types "
    "are left out, and some labels are wrong.",
    "The texts are English, from a few libraries of similar style. The table of the library "
    "that was kept apart shows what to expect elsewhere: less.",
    "They contain no personal data except authors' names in prose.",
)
PREFIX_LENGTH = 100  # texts that agree in so many letters are copies
CACHE_FORMAT = 1  # increase it with every change of the rules below, which outdates cached files

LABELLED_SECTIONS = {"Parameters", "Other Parameters"}
LIST_SECTIONS = {"Attributes", "Returns", "Yields", "Receives", "Keyword Arguments"}
SKIPPED_SECTIONS = {"References", "See Also"}
HEADING = re.compile(r"^(\S.*)\n[-=]{3,}[ \t]*$", re.MULTILINE)
ENTRY = re.compile(r"^(\*{0,2}[A-Za-z_]\w*(?:, ?\*{0,2}\w+)*) ?: ?(\S.*)$")
ASIDE = re.compile(r"\(.*?\)|\[.*?\]|`+|default.*|,? *optional.*|of shape.*|of length.*")
CHOICE = re.compile(r"\{.*?\}")
QUOTED = re.compile(r"""^[{(]?\s*["'‘“].*["'’”]""")
TYPE_WORDS = {
    "array": "array arrays array_like array-like ndarray ndarrays matrix numpy.ndarray np.ndarray",
    "bool": "bool boolean bools booleans",
    "callable": "callable callables function",
    "container": "list lists tuple tuples dict dictionary set sequence mapping iterable",
    "float": "float floats",
    "int": "int ints integer integers",
    "str": "str string strings",
}
LABEL_OF = {word: label for label, words in TYPE_WORDS.items() for word in words.split()}
NO_TYPE = {"none", "nan", "np.nan", ""}  # an optional parameter, of any type


class Parameter(NamedTuple):
    """An entry of a list."""

    text: str  # name and description
    label: str | None  # None for an ambiguous type and for what is not a parameter


class Source(NamedTuple):
    """The documentation in one source file."""

    library: str
    path: str
    parameters: list[Parameter]
    paragraphs: list[str]  # prose, without the lists of parameters


def read_docstrings(settings: DataSettings) -> Corpus:
    """Read the libraries' parameters by split, and the training files' other texts.

    A source file is in one split only. Copies of an entry count once, and the unseen library has
    the lowest priority; no copy of a held-out entry is among the unlabelled texts.
    """
    if settings.unseen and settings.unseen not in settings.libraries:
        raise UserError(f"data.unseen: {settings.unseen!r} is not in data.libraries")
    sources = cached_sources(settings.libraries, settings.cache)
    names = (*SPLIT_NAMES, *([settings.unseen] if settings.unseen else []))
    by_split = {name: LabelledTexts() for name in names}
    pairs: list[tuple[Source, str]] = []  # each source with its split
    for source in sources:
        split = split_by_hash(f"{source.library}/{source.path}", settings)
        pairs.append((source, source.library if source.library == settings.unseen else split))
    seen: set[str] = set()
    held_out: set[str] = set()
    for source, split in sorted(pairs, key=lambda pair: pair[1] == settings.unseen):
        for text, label in source.parameters:
            key = _copy_key(text)
            if label is not None and key not in seen:
                seen.add(key)
                by_split[split].add(text, label)
                if split != "train":
                    held_out.add(key)
    unlabelled = {
        _copy_key(text): text
        for source, split in pairs
        if split == "train"
        for text in [*source.paragraphs, *(text for text, _ in source.parameters)]
    }
    about = (
        "Parameters in the documentation of the installed "
        f"{', '.join(settings.libraries)}: name and description, without the type, which is to be "
        "predicted. Copies count once, and a source file is in one split only"
        + (f"; {settings.unseen} is evaluated separately." if settings.unseen else ".")
    )
    texts = [text for key, text in unlabelled.items() if key not in held_out]
    return Corpus(by_split, texts, "data.libraries", about)


def cached_sources(libraries: list[str], cache: Path) -> list[Source]:
    """Read the libraries' documentation; `cache` keeps it by the libraries' versions."""
    sources: list[Source] = []
    for library in libraries:
        path = cache / f"{library}-{_library_version(library)}-{CACHE_FORMAT}.json"
        if not path.exists():
            write_text(path, json.dumps(list(extract(library)), ensure_ascii=False))
        try:
            for name, file, parameters, paragraphs in json.loads(path.read_text("utf-8")):
                parameters = [Parameter(*fields) for fields in parameters]
                sources.append(Source(name, file, parameters, paragraphs))
        except (ValueError, TypeError):
            raise UserError(f"{path}: is damaged; delete it, it will be rebuilt") from None
    return sources


def extract(library: str) -> Iterator[Source]:
    """Yield the documentation of each source file of an installed library but its tests."""
    for path in sorted(_root(library).rglob("*.py")):
        name = path.relative_to(_root(library)).as_posix()
        if "tests" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # a template, or a file for another version of Python
        parameters: list[Parameter] = []
        paragraphs: list[str] = []
        # Strings of several lines: docstrings, and templates of docstrings.
        strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        for text in (text for text in strings if isinstance(text, str) and "\n" in text):
            for heading, body in _sections(cleandoc(text)):
                if heading in LABELLED_SECTIONS:
                    parameters += _parameters(body)
                elif heading in LIST_SECTIONS:
                    parameters += (Parameter(entry.text, None) for entry in _parameters(body))
                elif heading not in SKIPPED_SECTIONS:
                    paragraphs += _paragraphs(body)
        if parameters or paragraphs:
            yield Source(library, name, parameters, paragraphs)


def label_of(field: str) -> str | None:
    """Return the label that a type field stands for, None if it names none or several."""
    if QUOTED.match(field):
        return "str"
    field = ASIDE.sub("", CHOICE.sub("", field)).lower()
    parts = [part.strip(" .;:") for part in re.split(r",|\||/| or ", field)]
    labels = {LABEL_OF.get(part.split()[0]) for part in parts if part not in NO_TYPE}
    return labels.pop() if len(labels) == 1 else None


def _copy_key(text: str) -> str:
    """Return what copies of a text share: the first letters of the description, not the name."""
    description = text.partition(" : ")[2].lower() or text.lower()
    return re.sub(r"[^a-z]+", " ", description).strip()[:PREFIX_LENGTH]


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield (heading, body) of each section; the text before the first heading has none."""
    start, heading = 0, ""
    for match in HEADING.finditer(text):
        yield heading, text[start : match.start()]
        start, heading = match.end(), match[1].strip()
    yield heading, text[start:]


def _parameters(body: str) -> Iterator[Parameter]:
    name, field, lines = "", "", list[str]()
    for line in [*body.split("\n"), "end"]:
        if line[:1].isspace() or not line:
            lines.append(line.strip())
            continue
        description = " ".join(" ".join(lines).split())
        if name and description:
            yield Parameter(f"{name} : {description}", label_of(field))
        entry = ENTRY.match(line)
        name, field, lines = (entry[1], entry[2], []) if entry else ("", "", [])


def _paragraphs(body: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", body):
        text = " ".join(paragraph.split())
        # A paragraph in the form of an entry would reveal its type.
        entry = ENTRY.match(paragraph.strip().partition("\n")[0])
        if len(text) >= 40 and not entry and ">>>" not in text and "---" not in text:
            yield text


def _root(library: str) -> Path:
    spec = None
    with suppress(ImportError, ValueError):
        spec = find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"data.libraries: {library!r} is not an installed package")
    return Path(spec.submodule_search_locations[0])


def _library_version(library: str) -> str:
    _root(library)  # UserError for a library that is not installed
    try:
        return version("scikit-learn" if library == "sklearn" else library)
    except PackageNotFoundError:
        reason = "has no version, so it cannot be cached"
        raise UserError(f"data.libraries: {library!r} {reason}") from None
