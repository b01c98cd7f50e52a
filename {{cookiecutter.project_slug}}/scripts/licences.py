"""List the licences of what the server's image and training install, in docs/licences.md.

    python -m scripts.licences [--check]

They are read from this environment: a package's licence expression, else what it says in words or
classifiers. Exit code 1 if one says nothing; with --check also if the page lacks one. What you have
read yourself comes first, in pyproject.toml: `[tool.standard.licences]`, a line `package = "MIT"`.
"""

import argparse
import os
import re
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

PAGE = Path("docs/licences.md")
BEGIN, END = "<!-- licences:begin, rewritten by make licences -->", "<!-- licences:end -->"
# Licences that ask something of who passes the package on, beyond naming its authors.
COPYLEFT = re.compile(r"GPL|GNU|MPL|Mozilla|EPL|Eclipse|EUPL|CDDL|OSL|SSPL|SA-\d")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare with the page")
    options = parser.parse_args()
    os.chdir(Path(__file__).parents[1])
    packages = collect(tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8")))
    if problem := why_not(packages):
        sys.exit(f"error: {problem}")
    before, listed, after = page()
    if options.check:
        lines = [f"{PAGE}: lacks {row}" for row in rows(packages) if row not in listed]
        print("\n".join(lines) or "the page lists every package")
        return 1 if lines else 0
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(packages)}\n\n{END}{after}", encoding="utf-8")
    print(f"written: {PAGE}, {len(packages)} packages")
    return 0


def why_not(packages: dict[str, tuple[str, str]]) -> str | None:
    unknown = [name for name, (licence, _) in packages.items() if not licence]
    return f"no licence is stated by: {', '.join(unknown)}" if unknown else None


def page() -> list[str]:
    """Return the page's text before, between and after the markers."""
    parts = re.split(f"{BEGIN}|{END}", PAGE.read_text(encoding="utf-8"))
    if len(parts) != 3:
        sys.exit(f"error: {PAGE}: its markers are lost: {BEGIN} … {END}")
    return parts


def collect(pyproject: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return (licence, where it is installed) of each package, by name: the server's first.

    Follows the requirements as they are installed here; extras that are not installed are left out.
    Raises PackageNotFoundError when a requirement of the server or of training is not installed.
    """
    from packaging.requirements import Requirement

    project = pyproject["project"]
    places = {"server": project["dependencies"], **project.get("optional-dependencies", {})}
    read = pyproject.get("tool", {}).get("standard", {}).get("licences", {})
    packages: dict[str, tuple[str, str]] = {}
    seen: set[tuple[str, str]] = set()
    for place, texts in places.items():
        waiting = [(text, "") for text in texts]
        while waiting:
            text, extra = waiting.pop()
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            try:
                package = distribution(requirement.name)
            except PackageNotFoundError:
                if place in ("server", "train"):
                    raise
                continue
            name = package.metadata["Name"]
            packages.setdefault(name, (read.get(name) or licence(package), place))
            new = {(name, each) for each in ("", *requirement.extras)} - seen
            waiting += [(text, each) for text in package.requires or [] for _, each in new]
            seen |= new
    return packages


def licence(package: Distribution) -> str:
    """Return the licence that a package's metadata states; "" if it states none."""
    metadata = package.metadata
    words = metadata.get("License") or ""
    # The text of the licence, or a word that names none.
    if "\n" in words or len(words) > 60 or words.split(" ")[0].lower() in ("unknown", "dual"):
        words = ""
    classifiers = (text for key, text in metadata.items() if key == "Classifier")
    named = [text.split(" :: ")[-1] for text in classifiers if text.startswith("License :: ")]
    return metadata.get("License-Expression") or words or " or ".join(named)


def rows(packages: dict[str, tuple[str, str]]) -> list[str]:
    order = sorted(packages.items(), key=lambda item: item[0].lower())
    return [f"| {name} | {licence} | {place} |" for name, (licence, place) in order]


def table(packages: dict[str, tuple[str, str]]) -> str:
    """Render all packages as Markdown, those under copyleft named before."""
    copyleft = {name: each for name, each in packages.items() if COPYLEFT.search(each[0])}
    names = [f"{name} ({licence}, {place})" for name, (licence, place) in sorted(copyleft.items())]
    head = ["| Package | Licence | Installed for |", "|---|---|---|"]
    return "\n".join([f"Copyleft: {', '.join(names) or 'none'}.", "", *head, *rows(packages)])


if __name__ == "__main__":
    sys.exit(main())
