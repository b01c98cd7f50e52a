"""Predict single files, or whole tables of items."""

import json
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..client import Client
from ..config import UserError
from . import common

NOTES = """\
whole tables: --input reads Parquet (.parquet), CSV (.csv) or JSON lines (.jsonl) with one item a
row and a column per field of a request's item, --output writes one of them with the other columns,
a column per field of a prediction, and `error`: why a row has none. A killed command goes on where
it was when it is repeated. Needs the extra `batch`. More: docs/batch.md"""


def register(group: common.CommandGroup) -> None:
    parser = group.add(
        run_predict,
        "",
        "FILE",
        "FILE --url http://127.0.0.1:8000",
        "--input big.parquet --output predictions.parquet",
        notes=NOTES,
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="inputs")
    parser.add_argument("--url", help="of a server; sends the first key of $APP_API_KEYS, if any")
    folder = Path(os.environ.get("APP_DEPLOYMENT_DIR", "deployment"))
    text = "the deployment folder (default: $APP_DEPLOYMENT_DIR, or else deployment)"
    parser.add_argument("--deployment", type=Path, default=folder, metavar="FOLDER", help=text)
    table = parser.add_argument_group("whole tables")
    add = table.add_argument
    add("--input", type=Path, metavar="TABLE", help="score all rows of this table")
    add("--output", type=Path, metavar="TABLE", help="where predictions go; appears when whole")
    text = "use this bundle, for example of a challenger (default: the champion's)"
    add("--bundle", type=Path, metavar="FOLDER", help=text)
    text = "the input's column for a field of the item, if it has another name"
    add("--column", action="append", default=[], metavar="FIELD=NAME", help=text)
    text = "a column of paths of files like FILE; relative ones start in the input's folder"
    add("--paths", metavar="NAME", help=text)
    add("--prefix", default="", metavar="TEXT", help="begin the new columns' names with this")
    add("--strict", action="store_true", help="end at the first invalid row")
    add("--overwrite", action="store_true", help="replace the output if it exists")
    text = "blocks that are scored at a time (default: one per core)"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    add("--threads", type=int, default=cores, metavar="N", help=text)
    text = "rows per call of the model, for example fewer if memory is short (default: by its size)"
    add("--batch-size", type=int, metavar="ROWS", help=text)


def run_predict(options: Namespace) -> None:
    """Predict files or whole tables with the deployed model, or files with a running server.

    Predicts the bundle's example request if no file is given. Prints JSON.
    """
    from ..bundle.deployment import champion_path
    from ..files import read_json
    from ..interfaces import InvalidItem
    from ..task.contract import item_from_file

    if options.input or options.output:
        score_table(options)
        return
    for path in options.files:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    items = [item_from_file(path) for path in options.files]
    if not items:
        folder, _ = champion_path(options.deployment)
        items = read_json(folder / "example.json")["items"]
    try:
        if options.url:
            with Client(options.url) as client:
                response = client.post("/v1/predict", {"items": items})
        else:
            response = predict_locally(options.deployment, items)
    except InvalidItem as error:
        name = options.files[error.index] if options.files else error.field
        raise UserError(f"{name}: {error}") from None
    print(json.dumps(response, indent=2, ensure_ascii=False))


def predict_locally(deployment: Path, items: list[Any]) -> dict[str, Any]:
    """Predict with the deployed champion, without a server."""
    from ..bundle.deployment import champion_path
    from ..bundle.load import load_bundle
    from ..task.contract import Item

    bundle = load_bundle(*champion_path(deployment))
    parsed = [Item.model_validate(item) for item in items]
    predictions = bundle.contract.decode(bundle.run(bundle.contract.encode(parsed)), parsed)
    return {
        "model": bundle.name,
        "model_version": bundle.version,
        "predictions": [prediction.model_dump() for prediction in predictions],
    }


def score_table(options: Namespace) -> None:
    """Score the table `--input` into the table `--output`."""
    try:
        from ..batch.job import Job
        from ..batch.scorer import FilePaths, Scorer
        from ..batch.tables import FORMATS, Source
    except ModuleNotFoundError as error:
        hint = "install this project's extra `batch`: pip install -e '.[batch]'"
        raise UserError(f"--input: needs {error.name}; {hint}") from None
    from ..bundle.deployment import champion_path
    from ..bundle.load import load_bundle

    path, output = options.input, options.output
    if not path or not output or options.files or options.url:
        raise UserError("--input TABLE and --output TABLE go together, without FILE and --url")
    for table in (path, output):
        if table.suffix not in FORMATS:
            raise UserError(f"{table}: its name must end in {', '.join(FORMATS)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if output.exists() and not options.overwrite:
        raise UserError(f"{output}: exists already; delete it or give --overwrite")
    if output.resolve() == path.resolve():
        raise UserError(f"{output}: is the input too; give the output another name")
    for name, count in (("--batch-size", options.batch_size), ("--threads", options.threads)):
        if count is not None and count < 1:
            raise UserError(f"{name} {count}: must be at least 1")
    names = _field_columns(options.column)
    chosen = (options.bundle, None) if options.bundle else champion_path(options.deployment)
    bundle = load_bundle(*chosen)
    paths = FilePaths(options.paths, path.parent) if options.paths else None
    scorer = Scorer(bundle, options.batch_size, paths)
    added = tuple(options.prefix + name for name in scorer.schema.names)
    job = Job(
        Source(path, names, options.paths, added), output, scorer, options.strict, options.threads
    )
    summary = job.run()
    new = summary.rows - summary.resumed
    print(
        f"written: {output}, {summary.rows:,} rows by model {bundle.version}, "
        f"{summary.errors:,} with an error; {new:,} in {summary.seconds:.1f} s, "
        f"{new / summary.seconds:,.0f} rows/s",
        file=sys.stderr,
    )


def _field_columns(arguments: list[str]) -> dict[str, str]:
    """Parse the arguments `FIELD=NAME` of `--column`. Raises UserError."""
    from ..task.contract import Item

    names = {}
    for text in arguments:
        field, equals, column = text.partition("=")
        if field not in Item.model_fields or not equals:
            fields = ", ".join(Item.model_fields)
            raise UserError(f"--column {text}: must be FIELD=NAME with one of the fields {fields}")
        names[field] = column
    return names
