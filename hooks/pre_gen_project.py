"""Refuse answers that could not become a working project, before anything is written.

Cookiecutter fills the answers in below. They arrive as JSON: its `tojson` writes quotes, braces'
neighbours and everything beyond ASCII as escapes, so no answer can end the string or run as code.
"""

import json
import keyword
import re
import sys
import unicodedata

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# The slug names the folder, which cookiecutter makes before this runs. One that is no plain folder
# name (empty, `..`, `a/b`) must not get that far: cookiecutter.json has put another in its place.
ANSWERS["project_slug"] = ANSWERS["__given_slug"]

LONGEST = 30
TEXTS = ("project_name", "description", "full_name", "email", "github_username")
# The import and distribution names of what the project depends on, and names with a meaning of
# their own: a project called like one of them would shadow it. The tests compare this list with
# the project's dependencies.
TAKEN = set(
    re.findall(
        r"\w+",
        """
        alembic basedpyright build cookiecutter dist docs fastapi fastapi_swagger filelock
        functorch httptools httpx httpx2 import_linter importlinter jinja2 matplotlib mlflow
        mlflow_skinny mlxtend mpl_toolkits numpy onnx onnxruntime onnxscript opentelemetry
        opentelemetry_api opentelemetry_exporter_otlp_proto_http optuna pandas pil pillow pip
        pre_commit prometheus_client psycopg py pyarrow pydantic pylab pytest pyyaml ruff runs
        safetensors scikit_learn scipy scripts setuptools site sklearn sqlalchemy src starlette
        statsmodels tasks test tests tokenizers torch torchgen torchvision tqdm transformers
        tzdata uv uvicorn uvloop yaml
        """,
    )
)


def problems():
    """(answer, what is wrong with it, a valid example) of each bad answer."""
    for name in TEXTS:
        strange = next((c for c in ANSWERS[name] if unicodedata.category(c) in FORBIDDEN), None)
        if strange is not None:
            yield name, f"must be one line of text, found the character U+{ord(strange):04X}", ""
        elif not ANSWERS[name].strip() and name != "description":
            yield name, "must not be empty", EXAMPLES[name]
    for name, separator in (("project_slug", "-"), ("package_name", "_")):
        reason = why_no_name(ANSWERS[name], separator)
        if reason:
            yield name, reason, suggestion(ANSWERS[name], separator)
    if not re.fullmatch(r"""[^@\s"'<>(),;:\\]+@[^@\s"'<>(),;:\\]+""", ANSWERS["email"]):
        yield "email", "must be an e-mail address", EXAMPLES["email"]
    if not re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,98}[A-Za-z0-9])?", ANSWERS["github_username"], re.A):
        yield "github_username", "must be letters, digits and hyphens", EXAMPLES["github_username"]


# Control characters, line and paragraph separators, halves of characters.
FORBIDDEN = {"Cc", "Zl", "Zp", "Cs"}
EXAMPLES = {
    "project_name": "Digit Reader",
    "full_name": "Ada Lovelace",
    "email": "ada@example.com",
    "github_username": "ada-lovelace",
}


def why_no_name(name, separator):
    """Why a name cannot be that of a folder, command or package; None if it can."""
    plain = name.replace("-", "_")
    if not re.fullmatch(f"[a-z][a-z0-9]*({separator}[a-z0-9]+)*", name):
        kind = "hyphens" if separator == "-" else "underscores"
        return f"must be lower-case letters, digits and single {kind}, a letter first"
    if len(name) > LONGEST:
        return f"has {len(name)} characters, must have at most {LONGEST}"
    if keyword.iskeyword(plain) or keyword.issoftkeyword(plain):
        return "is a word of the Python language"
    if plain in sys.stdlib_module_names:
        return "is a module of Python's standard library"
    if plain in TAKEN:
        return "is the name of something that the project depends on or uses"
    return None


def suggestion(name, separator):
    """A valid name that resembles the one given."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    while words and not words[0][0].isalpha():
        words[0] = words[0].lstrip("0123456789")
        words = [word for word in words if word]
    for wanted in (words, [*words, "model"], ["digit", "reader"]):
        near = separator.join(wanted)[:LONGEST].rstrip(separator)
        if why_no_name(near, separator) is None:
            break
    return near


found = list(problems())
for answer, reason, example in found:
    hint = f"; for example: {example}" if example else ""
    # ascii() keeps the message printable on every terminal.
    print(f"error: {answer}={ANSWERS[answer]!a}: {reason}{hint}", file=sys.stderr)
sys.exit(1 if found else 0)
