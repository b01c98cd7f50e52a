"""What deploys to a cloud is valid by its linters and does what its page says, without a cloud."""

import functools
import http.server
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import FORMS, OVERLAYS, ROOT, bake
from pytest_cookies.plugin import Cookies

CLOUDS = sorted(path.name for path in (OVERLAYS / "cloud").iterdir() if path.name[0] != "_")
CLOUDS.remove("none")
LONGEST = "thirty-letters-are-the-longest"
BIN = Path(sys.executable).parent
DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def baked(cookies_session: Cookies) -> Callable[..., Path]:
    """Bake each set of answers once: no test changes a file of its project."""

    @functools.cache
    def once(**answers: str) -> Path:
        project = bake(cookies_session, **answers)
        git = ["git", "-C", str(project), "-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
        return project

    return once


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


def lint(program: str, *arguments: object) -> None:
    done = subprocess.run([BIN / program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linters_of_templates_scripts_and_workflows_find_nothing(
    baked: Callable[..., Path], cloud: str, form: str
) -> None:
    project = baked(cloud=cloud, mlops=form, project_slug=LONGEST)
    folder = project / "deploy" / "cloud"
    lint("shellcheck", *folder.glob("*.sh"))
    lint("zizmor", "--offline", "--persona", "pedantic", project / ".github/workflows/deploy.yml")
    lint("bandit", "--quiet", folder / "smoke.py")
    lint("detect-secrets-hook", *folder.iterdir(), project / "docs" / "cloud.md")
    if templates := list(folder.glob("*.yaml")):
        lint("cfn-lint", *templates)


@pytest.fixture(scope="session")
def checkov() -> Path:
    """The program, in an environment of its own: it wants an older pytest."""
    folder = ROOT / "build" / "test" / "checkov"
    if not (folder / "bin" / "checkov").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [folder / "bin" / "pip", "install", "--quiet", "checkov~=3.3"]
        subprocess.run(install, check=True)
    return folder / "bin" / "checkov"


@pytest.mark.slow
def test_checkov_finds_nothing_that_is_not_accepted_with_a_reason(
    baked: Callable[..., Path], checkov: Path
) -> None:
    folder = baked(cloud="aws") / "deploy" / "cloud"
    command = [checkov, "--skip-download", "--quiet", "--compact", "--output", "json"]
    done = subprocess.run(
        [*command, "--framework", "cloudformation", "--directory", folder],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)["summary"]
    assert summary["failed"] == summary["parsing_errors"] == 0
    assert summary["passed"] > 50


def test_without_a_log_nothing_of_a_database_is_there(
    baked: Callable[..., Path], cloud: str
) -> None:
    folders = [baked(cloud=cloud, mlops=form) / "deploy" / "cloud" for form in FORMS]
    full, basic = ({path.name for path in folder.iterdir()} for folder in folders)
    assert basic < full
    assert all(name.startswith("database.") for name in full - basic)


def test_only_a_project_on_github_gets_the_workflow(baked: Callable[..., Path], cloud: str) -> None:
    for ci in ("github", "gitlab", "none"):
        project = baked(cloud=cloud, ci=ci)
        assert (project / ".github/workflows/deploy.yml").exists() == (ci == "github")
        assert os.access(next((project / "deploy" / "cloud").glob("*.sh")), os.X_OK)


def test_the_workflow_holds_no_key_pins_its_actions_and_may_little(
    baked: Callable[..., Path], cloud: str
) -> None:
    path = baked(cloud=cloud) / ".github" / "workflows" / "deploy.yml"
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {}
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    assert job["environment"] == "production"
    assert workflow["concurrency"] == {"group": "deploy-production", "cancel-in-progress": False}
    assert "secrets." not in text
    for action in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_aws_s_names_are_legal_for_the_longest_slug(baked: Callable[..., Path]) -> None:
    folder = baked(cloud="aws", project_slug=LONGEST) / "deploy" / "cloud"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.yaml"))
    (bucket,) = re.findall(r'BucketName: !Sub "(.*)"', text)
    bucket = bucket.replace("${AWS::AccountId}", "1" * 12)
    assert len(bucket.replace("${AWS::Region}", "ap-southeast-1")) <= 63
    (database,) = re.findall(r"DBInstanceIdentifier: (.*)", text)
    assert len(database) <= 63
    assert "RoleName" not in text  # CloudFormation invents those, of at most 64 characters


def test_the_page_names_files_headings_and_commands_that_exist(
    baked: Callable[..., Path], cloud: str
) -> None:
    project = baked(cloud=cloud)
    page = (project / "docs" / "cloud.md").read_text(encoding="utf-8")
    assert "[Cloud](docs/cloud.md)" in (project / "README.md").read_text(encoding="utf-8")
    headings = {line[3:].lower().replace(" ", "-") for line in re.findall("^## .*", page, re.M)}
    assert set(re.findall(r"\]\(#(.*?)\)", page)) == headings
    for name in re.findall(r"(?:deploy/cloud|\.github)/[\w./-]*\w", page):
        assert (project / name).exists(), name
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) > 5
    for block in blocks:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class Server(http.server.BaseHTTPRequestHandler):
    """Stands in for a server that becomes ready after two questions and wants a key."""

    asked = 0
    answers = 1

    def do_GET(self) -> None:
        if self.path == "/readyz":
            type(self).asked += 1
            ready = self.asked > 2
            self.answer(200 if ready else 503, {"reason": None if ready else "no model"})
        else:
            body = {"content": {"application/json": {"example": {"items": [{}]}}}}
            self.answer(200, {"paths": {"/v1/predict": {"post": {"requestBody": body}}}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.headers["x-api-key"] != "right":
            self.answer(401, {"detail": "no valid key"})
        else:
            self.answer(200, {"predictions": [{}] * self.answers, "model_version": "7"})

    def answer(self, status: int, content: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Server.asked, Server.answers = 0, 1
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def smoke(project: Path, *arguments: str, key: str = "right") -> subprocess.CompletedProcess[str]:
    script = project / "deploy" / "cloud" / "smoke.py"
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        env=os.environ | {"APP_KEY": key},
        capture_output=True,
        text=True,
    )


def test_the_smoke_test_waits_and_predicts_and_says_why_not(
    baked: Callable[..., Path], url: str
) -> None:
    project = baked(cloud="aws")
    done = smoke(project, url)
    assert done.stdout == f"{url} is ready and predicts with model version 7\n", done.stderr
    assert Server.asked == 3
    refused = smoke(project, url, key="wrong")
    assert refused.returncode == 1
    assert "401" in refused.stderr
    assert "no valid key" in refused.stderr
    Server.answers = 0
    assert smoke(project, url).returncode == 1
    Server.asked = -100
    late = smoke(project, url, "0")
    assert late.returncode == 1
    assert "503" in late.stderr
    assert "no model" in late.stderr


# Stands in for the programs of a cloud: writes down how it was called and answers from a table of
# patterns, exit codes and outputs; to anything else it says nothing, and that all is well.
STAND_IN = r"""#!/usr/bin/env bash
line="${0##*/} $*"
printf '%s\n' "$line" >>"$CALLS"
[[ $line =~ --data-file=-|--password-stdin ]] && cat >/dev/null
[[ $line =~ --yaml\ ([^ ]+) ]] && cp "${BASH_REMATCH[1]}" "$CALLS.yaml"
while IFS=$'\t' read -r pattern code output; do
  if [[ $line =~ $pattern ]]; then
    [ "$code" = 0 ] || exec >&2
    printf '%b\n' "$output"
    exit "$code"
  fi
done <"$ANSWERS"
exit 0
"""
# The smoke test asks the server of this test; clouds have HTTPS.
PYTHON = """#!/usr/bin/env bash
case "$1" in */smoke.py) set -- "$1" "$URL" ;; esac
exec {python} "$@"
"""


class Cloud:
    """Runs a project's script with stand-ins for the programs it needs."""

    def __init__(self, project: Path, folder: Path, url: str) -> None:
        self.project, self.calls, self.url = project, folder / "calls", url
        self.programs = folder / "bin"
        self.programs.mkdir()
        for name in ("aws", "az", "docker", "gcloud"):
            program = self.programs / name
            program.write_text(STAND_IN, encoding="utf-8")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        python = self.programs / "python3"
        python.write_text(PYTHON.format(python=sys.executable), encoding="utf-8")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)

    def run(
        self,
        *command: str,
        answers: list[tuple[str, int, str]],
        typed: str = "",
        **variables: str,
    ) -> tuple[str, list[str]]:
        """Run a script of deploy/cloud, which must succeed; its output, and what it called."""
        self.calls.write_text("")
        table = self.calls.with_suffix(".answers")
        table.write_text("".join(f"{p}\t{code}\t{output}\n" for p, code, output in answers))
        done = subprocess.run(
            [self.project / "deploy" / "cloud" / command[0], *command[1:]],
            env={
                "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
                "HOME": os.environ.get("HOME", ""),
                "CALLS": str(self.calls),
                "ANSWERS": str(table),
                "URL": self.url,
                **variables,
            },
            input=typed,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, self.calls.read_text().splitlines()


AWS = [
    ("OutputKey=='Registry'", 0, "1.dkr.ecr.eu-central-1.amazonaws.com/ml-project/server"),
    ("ml-project .*OutputKey=='StackRole'", 0, "arn:role"),
    ("ml-project .*OutputKey=='ApiKey'", 0, "arn:key"),
    ("OutputKey=='Endpoint'", 0, "host"),
    ("describe-images", 0, DIGEST),
    ("get-secret-value --secret-id arn:key", 0, "right"),
]
NEW = f"1.dkr.ecr.eu-central-1.amazonaws.com/ml-project/server@{DIGEST}"


def test_aws_gets_a_new_image_by_digest_and_then_one_prediction(
    baked: Callable[..., Path], tmp_path: Path, url: str
) -> None:
    aws = Cloud(baked(cloud="aws"), tmp_path, url)
    missing = ("ml-project-service .*OutputKey=='Image'", 255, "no such stack")
    variables = {"AWS_REGION": "eu-central-1", "PARAMETERS": "DatabaseUrl=arn:url Cpu=1024"}
    output, calls = aws.run("deploy.sh", answers=[missing, *AWS], **variables)
    assert "predicts with model version 7" in output
    assert "roll back" not in output
    unordered = re.compile("describe|login")  # a login is a pipe
    steps = [" ".join(call.split()[:3]) for call in calls if not unordered.search(call)]
    build, push = [call for call in calls if re.match("docker (build|push)", call)]
    assert steps == [
        "docker build --platform",
        " ".join(push.split()),
        "aws cloudformation deploy",
        "aws secretsmanager get-secret-value",
    ]
    assert push.split()[-1] in build.split()
    assert "EXTRAS=s3,postgresql" in build
    (deploy,) = [call for call in calls if "cloudformation deploy" in call]
    assert deploy.endswith(f"Image={NEW} DatabaseUrl=arn:url Cpu=1024")
    assert "--role-arn arn:role" in deploy


def test_aws_rolls_back_to_an_image_without_building(
    baked: Callable[..., Path], tmp_path: Path, url: str
) -> None:
    aws = Cloud(baked(cloud="aws"), tmp_path, url)
    answers = [("ml-project-service .*OutputKey=='Image'", 0, NEW), *AWS]
    old, summary = NEW.replace("0123", "4567"), tmp_path / "summary"
    variables = {"AWS_REGION": "eu-central-1", "GITHUB_STEP_SUMMARY": str(summary)}
    output, calls = aws.run("deploy.sh", old, answers=answers, **variables)
    assert f"to roll back: deploy/cloud/deploy.sh {NEW}" in output
    assert NEW in summary.read_text()
    assert not [call for call in calls if call.startswith("docker")]
    (deploy,) = [call for call in calls if "cloudformation deploy" in call]
    assert deploy.endswith(f"Image={old}")


def gcp(url: str, *answers: tuple[str, int, str]) -> list[tuple[str, int, str]]:
    """Google Cloud on which everything is there, unless the first answers say otherwise."""
    traffic = [
        {"revisionName": "new", "tag": "candidate", "url": url},
        {"revisionName": "old", "percent": 100},
    ]
    return [
        *answers,
        ("run services describe .*json", 0, json.dumps({"status": {"traffic": traffic}})),
        ("docker images describe", 0, DIGEST),
        ("versions access latest --secret=.*-api-key", 0, "right"),
        ("projectNumber", 0, "123"),
    ]


MISSING = (r" (describe|access) ", 1, "not found")


@pytest.mark.parametrize("slug", ["ab", LONGEST])
def test_google_gets_what_is_missing_once_and_legal_names(
    baked: Callable[..., Path], tmp_path: Path, url: str, slug: str, form: str
) -> None:
    cloud = Cloud(baked(cloud="gcp", project_slug=slug, mlops=form), tmp_path, url)
    longest = "p" * 30
    variables = {"PROJECT": longest, "REGION": "northamerica-northeast1", "REPOSITORY_ID": "42"}
    number = ("projectNumber", 0, "123")
    output, calls = cloud.run("cloud.sh", "up", answers=[number, MISSING], **variables)
    created = [call for call in calls if re.search(" create(-oidc)? ", call)]
    assert len(created) == (11 if form == "full" else 7)
    text = "\n".join(created)
    for account in re.findall(r"service-accounts create (\S+)", text):
        assert re.fullmatch(r"[a-z]([a-z0-9-]{4,28}[a-z0-9])", account)
    (pool,) = re.findall(r"pools create (\S+)", text)
    assert re.fullmatch(r"[a-z0-9-]{4,32}", pool)
    (bucket,) = re.findall(r"gs://(\S+) --location", text)
    assert len(bucket) <= 63
    assert "repository_id=='42' && assertion.ref=='refs/heads/main'" in text
    assert f"GCP_PROVIDER=projects/123/locations/global/workloadIdentityPools/{pool}" in output
    again, calls = cloud.run("cloud.sh", "up", answers=gcp(url), **variables)
    assert again == output
    assert not [call for call in calls if re.search(" (create(-oidc)?|versions add) ", call)]


def test_google_sends_traffic_to_a_revision_that_has_predicted(
    baked: Callable[..., Path], tmp_path: Path, url: str
) -> None:
    cloud = Cloud(baked(cloud="gcp"), tmp_path, url)
    variables = {"PROJECT": "p", "REGION": "europe-west1"}
    output, calls = cloud.run("cloud.sh", "deploy", answers=gcp(url), **variables)
    (deploy,) = [call for call in calls if "gcloud run deploy" in call]
    image = f"europe-west1-docker.pkg.dev/p/ml-project/server@{DIGEST}"
    for flag in (
        f"--image={image}",
        "--no-traffic",
        "--tag=candidate",
        "APP_DEPLOYMENT_URL=gs://p-ml-project/deployment",
        "--set-secrets=APP_API_KEYS=ml-project-api-key:latest,APP_DATABASE_URL=ml-project-database-url:latest",
        "--set-cloudsql-instances=p:europe-west1:ml-project",
    ):
        assert flag in deploy
    assert calls[-1].startswith("gcloud run services update-traffic ml-project")
    assert "--to-latest" in calls[-1]
    assert "predicts with model version 7" in output
    assert output.splitlines()[-1].startswith("to roll back: gcloud run services update-traffic")
    assert output.splitlines()[-1].endswith("--to-revisions=old=100")

    Server.answers = 0  # it predicts nothing
    with pytest.raises(AssertionError, match="no prediction"):
        cloud.run("cloud.sh", "deploy", image, answers=gcp(url), **variables)
    assert "update-traffic" not in cloud.calls.read_text()
    assert "docker build" not in cloud.calls.read_text()


def test_google_s_first_deployment_opens_the_service_to_callers_with_a_key(
    baked: Callable[..., Path], tmp_path: Path, url: str
) -> None:
    cloud = Cloud(baked(cloud="gcp", mlops="basic"), tmp_path, url)
    new = ("run services describe ml-project --region=europe-west1$", 1, "not found")
    variables = {"PROJECT": "p", "REGION": "europe-west1"}
    output, calls = cloud.run("cloud.sh", "deploy", answers=gcp(url, new), **variables)
    (deploy,) = [call for call in calls if "gcloud run deploy" in call]
    assert "--no-traffic" not in deploy
    assert "sql" not in deploy
    assert "DATABASE" not in deploy
    assert [call for call in calls if "--member=allUsers --role=roles/run.invoker" in call]
    assert "roll back" not in output


AZURE = [
    ("account show --query id", 0, "0a1b2c3d-1111-2222-3333-444455556666"),
    ("account show --query tenantId", 0, "tenant"),
    ("identity show .*principalId", 0, "principal"),
    ("identity show .*clientId", 0, "client"),
    ("signed-in-user show", 0, "me"),
    ("secret show .*api-key", 0, "right"),
]


@pytest.mark.parametrize("slug", ["a", "ab", LONGEST])
def test_azure_gets_what_is_missing_once_and_legal_names(
    baked: Callable[..., Path], tmp_path: Path, url: str, slug: str, form: str
) -> None:
    answers = {"project_slug": slug, "package_name": "package_name", "mlops": form}
    cloud = Cloud(baked(cloud="azure", **answers), tmp_path, url)
    variables = {"LOCATION": "westeurope", "SUBJECT": "repo:me@1/it@2:environment:production"}
    missing = (" show ", 1, "not found")
    output, calls = cloud.run("cloud.sh", "up", answers=[*AZURE, missing], **variables)
    created = [call for call in calls if " create " in call and " role assignment " not in call]
    assert len(created) == (10 if form == "full" else 8)
    text = "\n".join(created)
    (registry,) = re.findall(r"acr create .*--name (\S+)", text)
    assert re.fullmatch(r"[a-zA-Z0-9]{5,50}", registry)
    (account,) = re.findall(r"storage account create .*--name (\S+)", text)
    assert re.fullmatch(r"[a-z0-9]{3,24}", account)
    (app,) = re.findall(r"containerapp env create .*--name (\S+)", text)
    assert re.fullmatch(r"[a-z](?!.*--)[a-z0-9-]{0,30}[a-z0-9]", app)
    for database in re.findall(r"flexible-server create .*--name (\S+)", text):
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", database)
    assert "--subject repo:me@1/it@2:environment:production" in text
    assert f"AZURE_STORAGE_ACCOUNT_NAME={account}" in output
    again, calls = cloud.run("cloud.sh", "up", answers=AZURE, **variables)
    assert again == output
    created = [call for call in calls if " create " in call and " role assignment " not in call]
    assert len(created) == 2  # the group and the container, which az leaves as they are


def test_azure_s_first_app_has_probes_and_keeps_its_secrets_from_the_command_line(
    baked: Callable[..., Path], tmp_path: Path, url: str, form: str
) -> None:
    cloud = Cloud(baked(cloud="azure", mlops=form), tmp_path, url)
    new = ("containerapp show .*--name ml-project$", 1, "not found")
    image = f"mlproject0a1b2c3d.azurecr.io/server@{DIGEST}"
    output, calls = cloud.run(
        "cloud.sh", "deploy", image, answers=[*AZURE, new], LOCATION="westeurope"
    )
    assert "predicts with model version 7" in output
    assert "roll back" not in output
    app = yaml.safe_load(cloud.calls.with_suffix(".yaml").read_text())
    (container,) = app["properties"]["template"]["containers"]
    assert container["image"] == image
    paths = {probe["type"]: probe["httpGet"]["path"] for probe in container["probes"]}
    assert paths == {"Startup": "/readyz", "Readiness": "/readyz", "Liveness": "/healthz"}
    secrets = {
        secret["name"]: secret["value"] for secret in app["properties"]["configuration"]["secrets"]
    }
    variables = {entry["name"]: entry for entry in container["env"]}
    assert {v["secretRef"] for v in variables.values() if "secretRef" in v} == set(secrets)
    assert set(secrets) == {"api-key"} | ({"database-url"} if form == "full" else set())
    assert len(secrets["api-key"]) == 48
    assert not [call for call in calls if secrets["api-key"] in call]
    (path,) = [call.split()[-1] for call in calls if "--yaml" in call]
    assert not Path(path).exists()


def test_azure_sends_traffic_to_a_revision_that_has_predicted(
    baked: Callable[..., Path], tmp_path: Path, url: str
) -> None:
    cloud = Cloud(baked(cloud="azure"), tmp_path, url)
    repository = "mlproject0a1b2c3d.azurecr.io/server"
    answers = [
        *AZURE,
        ("traffic show", 0, "ml-project--old"),
        ("docker inspect", 0, f"elsewhere/server@sha256:0\\n{repository}@{DIGEST}"),
        ("revision list", 0, "ml-project--old"),
    ]
    output, calls = cloud.run("cloud.sh", "deploy", answers=answers, LOCATION="westeurope")
    (update,) = [call for call in calls if "containerapp update" in call]
    assert f"--image {repository}@{DIGEST} " in update
    (suffix,) = re.findall(r"--revision-suffix (\S+)", update)
    assert re.fullmatch(r"r\d{12}", suffix)
    assert f"--revision-weight ml-project--{suffix}=100" in calls[-4]
    assert "revision deactivate" in calls[-1]
    assert "--revision-weight ml-project--old=100" in output.splitlines()[-1]

    Server.answers = 0  # it predicts nothing
    with pytest.raises(AssertionError, match="no prediction"):
        cloud.run("cloud.sh", "deploy", "image", answers=answers, LOCATION="westeurope")
    assert "traffic set" not in cloud.calls.read_text()
    assert "deactivate" not in cloud.calls.read_text()


@pytest.mark.parametrize(
    ("cloud", "kinds"),
    [
        (
            "gcp",
            "run services, sql instances, secrets, artifacts repositories, iam service-accounts",
        ),
        (
            "azure",
            "containerapp, postgres flexible-server, containerapp env, acr, identity",
        ),
    ],
)
def test_down_deletes_nothing_before_the_name_is_typed_and_never_the_models(
    baked: Callable[..., Path], tmp_path: Path, url: str, cloud: str, kinds: str
) -> None:
    down = Cloud(baked(cloud=cloud), tmp_path, url)
    variables = {"PROJECT": "p", "REGION": "r", "LOCATION": "l"}
    with pytest.raises(AssertionError, match="nothing deleted"):
        down.run("cloud.sh", "down", answers=AZURE, typed="yes\n", **variables)
    assert " delete" not in down.calls.read_text()
    down.run("cloud.sh", "down", answers=AZURE, typed="ml-project\n", **variables)
    deleted = re.findall(r"^(?:gcloud|az) (.*?) delete", down.calls.read_text(), re.M)
    assert set(deleted) == set(kinds.split(", "))


@pytest.mark.parametrize("cloud", ["gcp", "azure"])
def test_without_a_command_the_script_says_which_there_are(
    baked: Callable[..., Path], cloud: str
) -> None:
    script = baked(cloud=cloud) / "deploy" / "cloud" / "cloud.sh"
    done = subprocess.run([script, "help"], capture_output=True, text=True)
    assert done.returncode == 2
    named = re.findall(r"^  cloud\.sh (\w+)", done.stderr, re.M)
    assert named == ["up", "deploy", "status", "down"]
    assert done.stderr.count("#") == 0
