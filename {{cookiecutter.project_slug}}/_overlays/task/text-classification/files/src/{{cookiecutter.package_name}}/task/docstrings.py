"""Parameters and their types, from the documentation of installed libraries.

The sources are parsed, never imported. Documentation in numpydoc's form lists each parameter as
`name : type` with an indented description; the type tells the label and is cut out of the text.
Format: https://numpydoc.readthedocs.io/en/latest/format.html
"""

import ast
import json
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from inspect import cleandoc
from pathlib import Path
from typing import NamedTuple

from ..config import UserError
from ..files import write_text
from .settings import DataSettings
from .texts import PARTS, Part, Texts, part_by_hash

ALIKE = 100  # texts that agree in so many letters are one text, copied
FORMAT = 1  # of what is stored; a change of the rules below makes the stored files outdated

LABELLED = {"Parameters", "Other Parameters"}
LISTED = {"Attributes", "Returns", "Yields", "Receives", "Keyword Arguments"}  # in the same form
LEFT_OUT = {"References", "See Also"}
HEADING = re.compile(r"^(\S.*)\n[-=]{3,}[ \t]*$", re.MULTILINE)
ENTRY = re.compile(r"^(\*{0,2}[A-Za-z_]\w*(?:, ?\*{0,2}\w+)*) ?: ?(\S.*)$")
ASIDE = re.compile(r"\(.*?\)|\[.*?\]|`+|default.*|,? *optional.*|of shape.*|of length.*")
CHOICE = re.compile(r"\{.*?\}")
QUOTED = re.compile(r"""^[{(]?\s*["'‘“].*["'’”]""")
WORDS = {
    "array": "array arrays array_like array-like ndarray ndarrays matrix numpy.ndarray np.ndarray",
    "bool": "bool boolean bools booleans",
    "callable": "callable callables function",
    "container": "list lists tuple tuples dict dictionary set sequence mapping iterable",
    "float": "float floats",
    "int": "int ints integer integers",
    "str": "str string strings",
}
LABEL_OF = {word: label for label, words in WORDS.items() for word in words.split()}
NO_TYPE = {"none", "nan", "np.nan", ""}  # says that a parameter may be left out, not what it is


class Parameter(NamedTuple):
    """An entry's name and description; the label is None where the type field is not clear, and of
    entries that are no parameters."""

    text: str
    label: str | None


class Source(NamedTuple):
    """What one source file documents."""

    library: str
    path: str
    parameters: list[Parameter]
    paragraphs: list[str]  # of prose, parameters not among them


def read(settings: DataSettings) -> Texts:
    """Parameters of the libraries by split, and what the training files say besides.

    Source files stay whole. Entries that look alike count once, the unseen library's last; nothing
    that looks like a held-out entry is among the unlabelled texts.
    """
    if settings.unseen and settings.unseen not in settings.libraries:
        raise UserError(f"data.unseen: {settings.unseen!r} is none of data.libraries")
    sources = load(settings.libraries, settings.cache)
    parts = {name: Part() for name in (*PARTS, *([settings.unseen] if settings.unseen else []))}
    homes = [_home(source, settings) for source in sources]
    seen: set[str] = set()
    held_out: set[str] = set()
    for source, home in sorted(
        zip(sources, homes, strict=True), key=lambda one: one[1] == settings.unseen
    ):
        for text, label in source.parameters:
            likeness = _likeness(text)
            if label is not None and likeness not in seen:
                seen.add(likeness)
                parts[home].add(text, label)
                if home != "train":
                    held_out.add(likeness)
    unlabelled = {
        _likeness(text): text
        for source, home in zip(sources, homes, strict=True)
        if home == "train"
        for text in [*source.paragraphs, *(text for text, _ in source.parameters)]
    }
    about = (
        "Entries on parameters in the documentation of the installed "
        f"{', '.join(settings.libraries)}: name and description, without the type that is to be "
        "guessed. Entries that look alike count once, and a source file is in one split only"
        + (f"; {settings.unseen} is kept apart." if settings.unseen else ".")
    )
    texts = [text for likeness, text in unlabelled.items() if likeness not in held_out]
    return Texts(parts, texts, "data.libraries", about)


def load(libraries: list[str], cache: Path) -> list[Source]:
    """What libraries document, kept in `cache` under the versions that it is of."""
    found: list[Source] = []
    for library in libraries:
        path = cache / f"{library}-{_version(library)}-{FORMAT}.json"
        if not path.exists():
            sources = list(extract(library))
            write_text(path, json.dumps(sources, ensure_ascii=False))
        try:
            for name, file, parameters, paragraphs in json.loads(path.read_text("utf-8")):
                found.append(
                    Source(name, file, [Parameter(*one) for one in parameters], paragraphs)
                )
        except (ValueError, TypeError):
            raise UserError(f"{path}: is damaged, remove it (it will be made again)") from None
    return found


def extract(library: str) -> Iterator[Source]:
    """What each source file of an installed library documents; its tests are left out."""
    for path in sorted(_root(library).rglob("*.py")):
        name = path.relative_to(_root(library)).as_posix()
        if "tests" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # a template of a file, or one for another Python
        parameters: list[Parameter] = []
        paragraphs: list[str] = []
        for text in _documentation(tree):
            for heading, body in _sections(text):
                if heading in LABELLED:
                    parameters += _parameters(body)
                elif heading in LISTED:
                    parameters += (Parameter(entry.text, None) for entry in _parameters(body))
                elif heading not in LEFT_OUT:
                    paragraphs += _paragraphs(body)
        if parameters or paragraphs:
            yield Source(library, name, parameters, paragraphs)


def label_of(field: str) -> str | None:
    """The label that a type field stands for, None when it names none or several."""
    if QUOTED.match(field):
        return "str"
    field = ASIDE.sub("", CHOICE.sub("", field)).lower()
    parts = [part.strip(" .;:") for part in re.split(r",|\||/| or ", field)]
    found = {LABEL_OF.get(part.split()[0] if part else "") for part in parts if part not in NO_TYPE}
    return found.pop() if len(found) == 1 else None


def _home(source: Source, settings: DataSettings) -> str:
    """The part that a source file belongs to."""
    if source.library == settings.unseen:
        return source.library
    return part_by_hash(f"{source.library}/{source.path}", settings)


def _likeness(text: str) -> str:
    """What texts that say the same have in common: the letters of their beginning, but a name's."""
    return re.sub(r"[^a-z]+", " ", text.partition(" : ")[2].lower() or text.lower())[:ALIKE]


def _documentation(tree: ast.Module) -> Iterator[str]:
    """Every string of some length that stands in a file: docstrings, and templates of them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            yield cleandoc(node.value)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """(heading, body) of each section; what comes before the first heading has none."""
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
        # What looks like an entry outside of a list of them would bring its type along.
        entry = ENTRY.match(paragraph.strip().partition("\n")[0])
        if len(text) >= 40 and not entry and ">>>" not in text and "---" not in text:
            yield text


def _root(library: str) -> Path:
    try:
        found = find_spec(library)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise UserError(f"data.libraries: {library!r} is not an installed package")
    return Path(found.submodule_search_locations[0])


def _version(library: str) -> str:
    _root(library)  # names a library that is not there
    try:
        return version({"sklearn": "scikit-learn"}.get(library, library))
    except PackageNotFoundError:
        raise UserError(
            f"data.libraries: {library!r} has no version, so it can't be kept"
        ) from None
