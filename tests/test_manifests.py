"""The manifests for Kubernetes are valid by the schemas of the operators that run them."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import FORMS, bake
from pytest_cookies.plugin import Cookies

SCHEMAS = Path(__file__).parent / "schemas"
KINDS = ["jobset", "trainjob"]


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow no field that the schema does not name, as `kubectl apply --validate=strict` does."""
    closed = dict(schema)
    if schema.get("type") == "object":
        fields = schema.get("properties", {})
        closed["properties"] = {name: strict(field) for name, field in fields.items()}
        closed.setdefault("additionalProperties", False)
    if schema.get("type") == "array":
        closed["items"] = strict(schema["items"]) if "items" in schema else False
    return closed


def errors(kind: str, manifest: dict[str, Any]) -> list[str]:
    schema = strict(yaml.safe_load((SCHEMAS / f"{kind}.yaml").read_text(encoding="utf-8")))
    # A resource's metadata are the same for all kinds; the schemas leave them to Kubernetes.
    schema["properties"]["metadata"] = {"required": ["name"]}
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def rendered(project: Path, kind: str) -> dict[str, Any]:
    path = project / "deploy" / "kubernetes" / f"{kind}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_s_schema_accepts_the_manifest(cookies: Cookies, kind: str, form: str) -> None:
    project = bake(cookies, mlops=form, project_name="Own Name")
    manifest = rendered(project, kind)
    assert errors(kind, manifest) == []
    assert manifest["metadata"]["name"] == "own-name-train"
    assert "own_name.cli" in str(manifest)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_field_a_wrong_type_and_a_missing_field_are_refused(
    cookies: Cookies, kind: str
) -> None:
    project = bake(cookies)
    text = (project / "deploy" / "kubernetes" / f"{kind}.yaml").read_text(encoding="utf-8")
    for right, wrong in (
        ("mountPath", "mountpath"),
        ('cpu: "2"', "cpu: [2]"),
        (r"(numNodes|parallelism): 2", r"\1: two"),
        (r"claimName: .*", "readOnly: true"),
        (r"alpha\d", "beta1"),
    ):
        broken, count = re.subn(right, wrong, text)
        assert count == 1, right
        assert errors(kind, yaml.safe_load(broken)), wrong


def test_the_jobset_s_parts_agree_on_machines_and_address(cookies: Cookies) -> None:
    manifest = rendered(bake(cookies), "jobset")
    (group,) = manifest["spec"]["replicatedJobs"]
    job = group["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    arguments = container["args"]
    assert job["parallelism"] == job["completions"]
    assert f"--nnodes={job['completions']}" in arguments
    name = manifest["metadata"]["name"]
    # JobSet: <set>-<group>-<job>-<pod>.<set>
    assert f"--master-addr={name}-{group['name']}-0-0.{name}" in arguments
    assert f"--master-port={container['ports'][0]['containerPort']}" in arguments
