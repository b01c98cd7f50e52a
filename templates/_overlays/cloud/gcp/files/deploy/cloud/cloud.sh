#!/usr/bin/env bash
# The server on Google Cloud; docs/cloud.md explains the order.
#   cloud.sh up              create what is missing: registry, bucket, secrets, accounts, database
#   cloud.sh deploy [IMAGE]  build and push, or take IMAGE (…@sha256:…); predict once; then take traffic
#   cloud.sh status          what is there, and what serves
#   cloud.sh down            delete everything but the bucket
# Needs gcloud, docker, openssl, python3, and PROJECT and REGION. With REPOSITORY_ID, the number of
# the repository on GitHub, `up` also lets its workflow deploy from main.
set -euo pipefail
case "${1:-}" in
  up | deploy | status | down) ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/../.."
name={{ cookiecutter.project_slug }}
project="${PROJECT:?the id of the project on Google Cloud}"
region="${REGION:?for example europe-west1}"
export CLOUDSDK_CORE_PROJECT="$project" CLOUDSDK_CORE_DISABLE_PROMPTS=1

registry="$region-docker.pkg.dev/$project/$name/server"
bucket="$project-$name"
short="${name:0:23}" # ids of service accounts have at most 30 characters
server="$short-server@$project.iam.gserviceaccount.com"
deployer="$short-deploy@$project.iam.gserviceaccount.com"
pool="gh-${name:0:29}" # 4 to 32 characters
environment="APP_ENVIRONMENT=production,APP_PORT=8000,APP_METRICS=key,APP_DEPLOYMENT_DIR=/tmp/deployment"
environment+=",APP_DEPLOYMENT_URL=gs://$bucket/deployment"
secrets="APP_API_KEYS=$name-api-key:latest" # pragma: allowlist secret
flags=()
extras=gcs # of the image

exists() { "$@" >/dev/null 2>&1; }

retry() { # a new account is known everywhere only after some seconds
  for _ in 1 2 3 4 5; do
    "$@" >/dev/null && return
    sleep 5
  done
  return 1
}

grant() { # grant RESOURCE-COMMAND… MEMBER ROLE
  retry gcloud "${@:1:$#-2}" --member="${*: -2:1}" --role="${*: -1}"
}

secret() { # secret NAME: keep what is on standard input, readable by the server
  exists gcloud secrets describe "$1" || gcloud secrets create "$1" --replication-policy=automatic
  gcloud secrets versions add "$1" --data-file=-
  grant secrets add-iam-policy-binding "$1" "serviceAccount:$server" roles/secretmanager.secretAccessor
}

account() {
  exists gcloud iam service-accounts describe "$1-$2@$project.iam.gserviceaccount.com" ||
    gcloud iam service-accounts create "$1-$2" --display-name="$name: $2"
}

# A project without a prediction log has no database.sh.
database_up() { :; }
database_status() { :; }
database_down() { :; }
# shellcheck source=/dev/null
[ ! -f deploy/cloud/database.sh ] || source deploy/cloud/database.sh

up() {
  gcloud services enable artifactregistry.googleapis.com iamcredentials.googleapis.com \
    run.googleapis.com secretmanager.googleapis.com sqladmin.googleapis.com sts.googleapis.com
  exists gcloud artifacts repositories describe "$name" --location="$region" ||
    gcloud artifacts repositories create "$name" --location="$region" --repository-format=docker
  account "$short" server

  exists gcloud storage buckets describe "gs://$bucket" ||
    gcloud storage buckets create "gs://$bucket" --location="$region" \
      --uniform-bucket-level-access --public-access-prevention
  gcloud storage buckets update "gs://$bucket" --versioning
  grant storage buckets add-iam-policy-binding "gs://$bucket" "serviceAccount:$server" roles/storage.objectViewer

  exists gcloud secrets versions access latest --secret="$name-api-key" ||
    openssl rand -hex 24 | tr -d '\n' | secret "$name-api-key"
  database_up

  [ -z "${REPOSITORY_ID:-}" ] || allow_github
  echo "publish the model to gs://$bucket/deployment, then: deploy/cloud/cloud.sh deploy"
}

allow_github() {
  local number provider
  account "$short" deploy
  exists gcloud iam workload-identity-pools describe "$pool" --location=global ||
    gcloud iam workload-identity-pools create "$pool" --location=global
  exists gcloud iam workload-identity-pools providers describe github \
    --workload-identity-pool="$pool" --location=global ||
    gcloud iam workload-identity-pools providers create-oidc github \
      --workload-identity-pool="$pool" --location=global \
      --issuer-uri=https://token.actions.githubusercontent.com \
      --attribute-mapping="google.subject=assertion.sub,attribute.repository_id=assertion.repository_id" \
      --attribute-condition="assertion.repository_id=='$REPOSITORY_ID' && assertion.ref=='refs/heads/main' && assertion.environment=='production'"
  number="$(gcloud projects describe "$project" --format='value(projectNumber)')"
  provider="projects/$number/locations/global/workloadIdentityPools/$pool"
  grant iam service-accounts add-iam-policy-binding "$deployer" \
    "principalSet://iam.googleapis.com/$provider/attribute.repository_id/$REPOSITORY_ID" roles/iam.workloadIdentityUser
  grant iam service-accounts add-iam-policy-binding "$server" "serviceAccount:$deployer" roles/iam.serviceAccountUser
  grant artifacts repositories add-iam-policy-binding "$name" --location="$region" \
    "serviceAccount:$deployer" roles/artifactregistry.writer
  grant secrets add-iam-policy-binding "$name-api-key" "serviceAccount:$deployer" roles/secretmanager.secretAccessor
  ! exists gcloud run services describe "$name" --region="$region" ||
    grant run services add-iam-policy-binding "$name" --region="$region" "serviceAccount:$deployer" roles/run.developer
  printf '%s\n' "for GitHub's variables:" "GCP_PROVIDER=$provider/providers/github" \
    "GCP_DEPLOY_ACCOUNT=$deployer" "GCP_PROJECT=$project" "GCP_REGION=$region"
}

traffic() { # traffic CONDITION FIELD: of the entries of the service's traffic
  gcloud run services describe "$name" --region="$region" --format=json | python3 -c \
    "import json, sys; print(*(t['$2'] for t in json.load(sys.stdin)['status']['traffic'] if $1))"
}

deploy() {
  local image="${1:-}" previous="" tag
  if [ -z "$image" ]; then
    tag="$(git rev-parse --short=12 HEAD)-$(date -u +%Y%m%d%H%M%S)"
    gcloud auth configure-docker "$region-docker.pkg.dev"
    docker build --platform linux/amd64 --build-arg EXTRAS="$extras" \
      --build-arg REVISION="$(git rev-parse HEAD)" --tag "$registry:$tag" .
    docker push "$registry:$tag"
    image="$registry@$(gcloud artifacts docker images describe "$registry:$tag" \
      --format='value(image_summary.digest)')"
  fi
  if exists gcloud run services describe "$name" --region="$region"; then
    previous="$(traffic "t.get('percent')" revisionName)"
    flags+=(--no-traffic)
  fi
  gcloud run deploy "$name" --image="$image" --region="$region" --service-account="$server" \
    --tag=candidate --port=8000 --cpu=1 --memory=1Gi --no-cpu-throttling --execution-environment=gen2 \
    --min-instances="${MIN_INSTANCES:-0}" --max-instances="${MAX_INSTANCES:-4}" --timeout=60 \
    --startup-probe=httpGet.path=/readyz,httpGet.port=8000,periodSeconds=2,timeoutSeconds=2,failureThreshold=60 \
    --liveness-probe=httpGet.path=/healthz,httpGet.port=8000,periodSeconds=10,timeoutSeconds=3,failureThreshold=3 \
    --set-env-vars="$environment" --set-secrets="$secrets" ${flags[@]+"${flags[@]}"}
  [ -n "$previous" ] || # callers are known by the key that the server asks for
    grant run services add-iam-policy-binding "$name" --region="$region" allUsers roles/run.invoker

  APP_KEY="$(gcloud secrets versions access latest --secret="$name-api-key")"
  export APP_KEY
  python3 deploy/cloud/smoke.py "$(traffic "t.get('tag') == 'candidate'" url)"
  gcloud run services update-traffic "$name" --region="$region" --to-latest
  [ -z "$previous" ] || rollback_by "gcloud run services update-traffic $name --project=$project --region=$region --to-revisions=$previous=100"
}

rollback_by() {
  echo "to roll back: $1"
  [ -z "${GITHUB_STEP_SUMMARY:-}" ] ||
    printf '%s\n' "Deployed. To roll back:" "" "    $1" >>"$GITHUB_STEP_SUMMARY"
}

status() {
  gcloud run services describe "$name" --region="$region" --format='yaml(status.url,status.traffic)' || true
  gcloud artifacts docker images list "$registry" --include-tags --sort-by=~UPDATE_TIME --limit=5 || true
  gcloud storage ls "gs://$bucket/deployment/" || true
  database_status
}

down() {
  read -rp "delete $name in $project, but not gs://$bucket? type its name: " answer
  [ "$answer" = "$name" ] || { echo "nothing deleted" >&2; exit 1; }
  ! exists gcloud run services describe "$name" --region="$region" ||
    gcloud run services delete "$name" --region="$region"
  database_down
  ! exists gcloud secrets describe "$name-api-key" || gcloud secrets delete "$name-api-key"
  ! exists gcloud artifacts repositories describe "$name" --location="$region" ||
    gcloud artifacts repositories delete "$name" --location="$region"
  for account in "$server" "$deployer"; do
    ! exists gcloud iam service-accounts describe "$account" || gcloud iam service-accounts delete "$account"
  done
}

"$@"
