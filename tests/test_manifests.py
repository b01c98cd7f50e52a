"""The manifests for Kubernetes are valid, by its schemas and those of operators, and restricted.

Overlays are rendered by a real kubectl; no cluster runs them.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import FORMS, bake
from pytest_cookies.plugin import Cookies

SCHEMAS = Path(__file__).parent / "schemas"
KINDS = ["jobset", "trainjob"]
VERSIONS = ("1.30", "1.37")  # of Kubernetes, the oldest that docs/kubernetes.md names and today's
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}  # those that are used


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


def kustomized(kubectl: Path, project: Path, overlay: str) -> list[dict[str, Any]]:
    """Render an overlay as `kubectl apply -k` does; `bucket` is the cluster's, changed as told."""
    path = project / "deploy" / "kubernetes" / "overlays" / overlay.replace("bucket", "cluster")
    if overlay == "bucket":
        file = path / "kustomization.yaml"
        text = file.read_text(encoding="utf-8").replace("  # - ../../bucket", "  - ../../bucket")
        file.write_text(text.replace("  - path: volume.yaml\n", ""), encoding="utf-8")
    done = subprocess.run([kubectl, "kustomize", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # warnings of what is deprecated
    return list(yaml.safe_load_all(done.stdout))


def pods(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Find the specifications of pods, however deep they lie."""
    for key, value in manifest.items():
        if key == "template" and "containers" in value.get("spec", {}):
            yield value["spec"]
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from pods(inner)


def unrestricted(pod: dict[str, Any]) -> list[str]:
    """Say what Kubernetes' Pod Security Standard "restricted" would refuse of a pod.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    context = pod.get("securityContext", {})
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    for volume in pod.get("volumes", ()):
        found += [f"volume {name}" for name in volume.keys() - VOLUMES - {"name"}]
    found += [] if context.get("runAsNonRoot") is True else ["runAsNonRoot"]
    found += ["runAsUser"] if context.get("runAsUser") == 0 else []
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("seccompProfile")
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("allowPrivilegeEscalation")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            found.append("capabilities")
        overrides = own.keys() & {"privileged", "procMount", "runAsNonRoot", "runAsUser"}
        found += sorted(overrides | (own.keys() & {"seccompProfile", "seLinuxOptions"}))
        found += [f"hostPort {port}" for port in container.get("ports", ()) if "hostPort" in port]
    return found


@pytest.fixture(params=["one-node", "cluster", "bucket"])
def overlay(request: pytest.FixtureRequest) -> str:
    return request.param


# Words that YAML would read as something else, and the longest slug.
@pytest.mark.parametrize("slug", ["yes", "null", "a2345678-b2345678-c2345678-d23"])
def test_kubernetes_accepts_the_manifests_of_any_project(
    cookies: Cookies, kubectl: Path, overlay: str, slug: str
) -> None:
    project = bake(cookies, project_slug=slug, package_name="package_name")
    manifests = kustomized(kubectl, project, overlay)
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(set(names)) == len(names)
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        # DNS-1035, as Services need; a CronJob appends 11 characters for its jobs.
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name), name
        assert len(name) <= 52, name
        assert name == slug or name.startswith(f"{slug}-")
        assert manifest["metadata"].get("namespace") == (None if kind == "Namespace" else slug)
        if manifest["apiVersion"].startswith("monitoring.coreos.com"):
            assert errors(kind.lower(), manifest) == []
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_pods_are_restricted_and_get_no_token_and_no_variables_of_services(
    cookies: Cookies, kubectl: Path, overlay: str
) -> None:
    found = 0
    for manifest in kustomized(kubectl, bake(cookies), overlay):
        for pod in pods(manifest):
            found += 1
            assert unrestricted(pod) == [], manifest["metadata"]["name"]
            assert pod["automountServiceAccountToken"] is False
            assert pod["enableServiceLinks"] is False  # else APP_PORT for a Service named app
            for container in pod["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                assert container["resources"]["limits"].keys() == {"memory"}
                assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert found == 4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_pods_that_train_on_several_machines_are_restricted(
    cookies: Cookies, kind: str, form: str
) -> None:
    (pod,) = pods(rendered(bake(cookies, mlops=form), kind))
    assert unrestricted(pod) == []


def test_a_pod_that_is_not_restricted_is_found_out(cookies: Cookies) -> None:
    text = (bake(cookies) / "deploy/kubernetes/base/server.yaml").read_text(encoding="utf-8")
    for right, wrong in (
        ("runAsNonRoot: true", "runAsNonRoot: false"),
        ("runAsUser: 10001", "runAsUser: 0"),
        ("type: RuntimeDefault", "type: Unconfined"),
        ("drop: [ALL]", "add: [ALL]"),
        ("allowPrivilegeEscalation: false", "privileged: true"),
        ("emptyDir:", "hostPath:"),
        ("terminationGracePeriodSeconds:", "hostNetwork: true #"),
        ("containerPort: 8000", "hostPort: 8000"),
    ):
        assert right in text
        manifest = next(yaml.safe_load_all(text.replace(right, wrong)))
        (pod,) = pods(manifest)
        assert unrestricted(pod), wrong


def test_manifests_refer_to_what_is_there(cookies: Cookies, kubectl: Path, overlay: str) -> None:
    manifests = kustomized(kubectl, bake(cookies), overlay)
    there = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    there.add(("Secret", "ml-project"))  # made by hand, docs/kubernetes.md
    selectable = []
    for manifest in manifests:
        for pod in pods(manifest):
            mounted = set()
            for container in pod["containers"]:
                for source in container["envFrom"]:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in there
                mounted |= {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}
            for volume in pod["volumes"]:
                if "persistentVolumeClaim" in volume:
                    claim = volume["persistentVolumeClaim"]["claimName"]
                    assert ("PersistentVolumeClaim", claim) in there
                if "secret" in volume:
                    assert ("Secret", volume["secret"]["secretName"]) in there
        template = manifest.get("spec", {}).get("jobTemplate", manifest).get("spec", {})
        if "template" in template:
            selectable.append(template["template"]["metadata"]["labels"])
        if manifest["kind"] == "Service":
            selectable.append(manifest["metadata"]["labels"])
        if manifest["kind"] == "HorizontalPodAutoscaler":
            target = manifest["spec"]["scaleTargetRef"]
            assert (target["kind"], target["name"]) in there
    for manifest in manifests:
        spec = manifest.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector") or {}
        wanted = selector.get("matchLabels", selector)
        assert any(wanted.items() <= labels.items() for labels in selectable), manifest["kind"]


def test_two_projects_share_no_name_in_a_cluster_a_prometheus_or_a_grafana(
    cookies: Cookies, kubectl: Path
) -> None:
    seen: list[set[str]] = []
    for slug in ("first", "second"):
        project = bake(cookies, project_slug=slug, package_name=slug)
        manifests = kustomized(kubectl, project, "cluster")
        names = {manifest["metadata"]["name"] for manifest in manifests}
        (dashboard,) = project.glob("deploy/grafana/dashboards/*.json")
        text = dashboard.read_text(encoding="utf-8")
        names |= set(re.findall(r'^  "(?:uid|title)": .*', text, re.M))
        text += (project / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
        names |= (jobs := set(re.findall(r'job=\\?"([^"\\]*)', text)))
        assert jobs == {slug}
        seen.append(names)
    assert not seen[0] & seen[1]
    assert '  "uid": "second-serving",' in seen[1]
