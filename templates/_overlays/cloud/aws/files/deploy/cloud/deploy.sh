#!/usr/bin/env bash
# Deploy the server: deploy.sh [IMAGE]. Builds and pushes an image, or takes IMAGE (…@sha256:…, to
# roll back), changes the stack, waits until the server is ready and sends it one prediction.
# Parameters of service.yaml keep their values unless PARAMETERS="Name=value …" names them.
# Needs aws, docker, python3 and AWS_REGION.
set -euo pipefail
cd "$(dirname "$0")/../.."
name={{ cookiecutter.project_slug }}
export AWS_REGION="${AWS_REGION:?the region of the stacks}"
export AWS_DEFAULT_REGION="$AWS_REGION" AWS_PAGER=""

output() { # output STACK KEY: an output of a stack
  aws cloudformation describe-stacks --stack-name "$1" \
    --query "Stacks[0].Outputs[?OutputKey=='$2'].OutputValue" --output text
}

registry="$(output "$name" Registry)"
role="$(output "$name" StackRole)"
key="$(output "$name" ApiKey)"
previous="$(output "$name-service" Image 2>/dev/null || true)"
extras=s3
[ ! -f deploy/cloud/database.yaml ] || extras=s3,postgresql # a project with a prediction log
if [ $# -gt 0 ]; then
  image="$1"
else
  tag="$(git rev-parse --short=12 HEAD)-$(date -u +%Y%m%d%H%M%S)"
  aws ecr get-login-password | docker login --username AWS --password-stdin "${registry%%/*}"
  docker build --platform linux/amd64 --build-arg EXTRAS="$extras" \
    --build-arg REVISION="$(git rev-parse HEAD)" --tag "$registry:$tag" .
  docker push "$registry:$tag"
  digest="$(aws ecr describe-images --repository-name "$name/server" --image-ids "imageTag=$tag" \
    --query 'imageDetails[0].imageDigest' --output text)"
  image="$registry@$digest"
fi
if [ -n "$previous" ] && [ "$previous" != "$image" ]; then
  echo "to roll back: deploy/cloud/deploy.sh $previous"
  [ -z "${GITHUB_STEP_SUMMARY:-}" ] ||
    printf '%s\n' "Deployed $image. To roll back:" "" "    deploy/cloud/deploy.sh $previous" \
      >>"$GITHUB_STEP_SUMMARY"
fi
# shellcheck disable=SC2086  # PARAMETERS are words
aws cloudformation deploy --stack-name "$name-service" --template-file deploy/cloud/service.yaml \
  --role-arn "$role" --no-fail-on-empty-changeset --parameter-overrides "Image=$image" ${PARAMETERS:-}

endpoint="$(output "$name-service" Endpoint)"
APP_KEY="$(aws secretsmanager get-secret-value --secret-id "$key" --query SecretString --output text)"
export APP_KEY
python3 deploy/cloud/smoke.py "https://${endpoint#https://}"
