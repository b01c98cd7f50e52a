#!/usr/bin/env bash
# The server on Azure; docs/cloud.md explains the order.
#   cloud.sh up              create what is missing: registry, blob container, identities, database
#   cloud.sh deploy [IMAGE]  build and push, or take IMAGE (…@sha256:…); predict once; then take traffic
#   cloud.sh status          what is there, and what serves
#   cloud.sh down            delete everything but the stored deployments
# Needs az (logged in), docker, openssl, python3, and LOCATION. With SUBJECT, the claim `sub` of
# GitHub's tokens, `up` also lets its workflow deploy.
set -euo pipefail
case "${1:-}" in
  up | deploy | status | down) ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/../.."
name={{ cookiecutter.project_slug }}
location="${LOCATION:?for example westeurope}"
export AZURE_CORE_ONLY_SHOW_ERRORS=true AZURE_CORE_OUTPUT=tsv

subscription="$(az account show --query id)"
suffix="${subscription%%-*}" # makes names unique that Azure wants to be so world-wide
compact="${name//-/}"
group=(--resource-group "$name")
app="$name"
[ ${#app} -gt 1 ] || app="$name-server" # 2 to 32 characters
registry="$compact$suffix" # 5 to 50 letters and digits
storage="${compact:0:16}$suffix" # 3 to 24 lower-case letters and digits
image_name="$registry.azurecr.io/server"
scope="/subscriptions/$subscription/resourceGroups/$name/providers"
registry_id="$scope/Microsoft.ContainerRegistry/registries/$registry"
storage_id="$scope/Microsoft.Storage/storageAccounts/$storage"
environment_id="$scope/Microsoft.App/managedEnvironments/$app"
app_id="$scope/Microsoft.App/containerApps/$app"
server_id="$scope/Microsoft.ManagedIdentity/userAssignedIdentities/server"
secrets="" environment="" # what database.sh adds to the app's YAML
extras=azure # and to the image

exists() { "$@" >/dev/null 2>&1; }

identity() { # identity NAME: its principal, created if missing
  exists az identity show "${group[@]}" --name "$1" ||
    az identity create "${group[@]}" --name "$1" --location "$location" >/dev/null
  az identity show "${group[@]}" --name "$1" --query principalId
}

grant() { # grant PRINCIPAL TYPE ROLE SCOPE; a new identity is known everywhere after some seconds
  for _ in 1 2 3 4 5; do
    az role assignment create --assignee-object-id "$1" --assignee-principal-type "$2" \
      --role "$3" --scope "$4" >/dev/null && return
    sleep 5
  done
  return 1
}

# A project without a prediction log has no database.sh.
database_up() { :; }
database_connect() { :; }
database_status() { :; }
database_down() { :; }
# shellcheck source=/dev/null
[ ! -f deploy/cloud/database.sh ] || source deploy/cloud/database.sh

up() {
  local server tries
  az group create --name "$name" --location "$location" >/dev/null
  exists az acr show "${group[@]}" --name "$registry" ||
    az acr create "${group[@]}" --name "$registry" --location "$location" --sku Basic --admin-enabled false
  exists az storage account show "${group[@]}" --name "$storage" ||
    az storage account create "${group[@]}" --name "$storage" --location "$location" --sku Standard_LRS \
      --https-only true --min-tls-version TLS1_2 --allow-blob-public-access false --allow-shared-key-access false
  az storage account blob-service-properties update "${group[@]}" --account-name "$storage" \
    --enable-versioning true >/dev/null
  server="$(identity server)"
  grant "$server" ServicePrincipal AcrPull "$registry_id"
  grant "$server" ServicePrincipal "Storage Blob Data Reader" "$storage_id"
  grant "$(az ad signed-in-user show --query id)" User "Storage Blob Data Contributor" "$storage_id"
  tries=0
  until az storage container create --account-name "$storage" --name models --auth-mode login >/dev/null; do
    tries=$((tries + 1)) # the last grant takes up to minutes to be known
    [ "$tries" -lt 8 ] || exit 1
    sleep 15
  done
  exists az containerapp env show "${group[@]}" --name "$app" ||
    az containerapp env create "${group[@]}" --name "$app" --location "$location" >/dev/null
  database_up
  [ -z "${SUBJECT:-}" ] || allow_github
  printf '%s\n' "publish the model, then: deploy/cloud/cloud.sh deploy" \
    "AZURE_STORAGE_ACCOUNT_NAME=$storage" "publish to: az://models/deployment"
}

allow_github() {
  local deployer
  deployer="$(identity deploy)"
  exists az identity federated-credential show "${group[@]}" --identity-name deploy --name github ||
    az identity federated-credential create "${group[@]}" --identity-name deploy --name github \
      --issuer https://token.actions.githubusercontent.com --subject "$SUBJECT" \
      --audiences api://AzureADTokenExchange >/dev/null
  grant "$deployer" ServicePrincipal AcrPush "$registry_id"
  grant "$deployer" ServicePrincipal "Managed Identity Operator" "$server_id"
  grant "$deployer" ServicePrincipal Reader "$environment_id"
  ! exists az containerapp show "${group[@]}" --name "$app" ||
    grant "$deployer" ServicePrincipal Contributor "$app_id"
  printf '%s\n' "for GitHub's variables:" \
    "AZURE_CLIENT_ID=$(az identity show "${group[@]}" --name deploy --query clientId)" \
    "AZURE_TENANT_ID=$(az account show --query tenantId)" \
    "AZURE_SUBSCRIPTION_ID=$subscription" "AZURE_LOCATION=$location"
}

create_app() ( # create_app IMAGE, in a subshell, which removes the file with secrets however it ends
  umask 077
  file="$(mktemp)"
  trap 'rm -f "$file"' EXIT
  database_connect
  cat >"$file" <<YAML
location: $location
identity:
  type: UserAssigned
  userAssignedIdentities:
    $server_id: {}
properties:
  managedEnvironmentId: $environment_id
  configuration:
    activeRevisionsMode: Multiple
    ingress:
      external: true
      allowInsecure: false
      targetPort: 8000
      traffic:
        - {latestRevision: true, weight: 100}
    registries:
      - {server: $registry.azurecr.io, identity: $server_id}
    secrets:
      - {name: api-key, value: $(openssl rand -hex 24)}$secrets
  template:
    revisionSuffix: first
    terminationGracePeriodSeconds: 30
    containers:
      - name: server
        image: $1
        resources: {cpu: 0.5, memory: 1Gi}
        env:
          - {name: APP_ENVIRONMENT, value: production}
          - {name: APP_PORT, value: "8000"}
          - {name: APP_METRICS, value: key}
          - {name: APP_DEPLOYMENT_URL, value: az://models/deployment}
          - {name: APP_DEPLOYMENT_DIR, value: /tmp/deployment}
          - {name: APP_API_KEYS, secretRef: api-key}
          - {name: AZURE_STORAGE_ACCOUNT_NAME, value: $storage}
          - {name: AZURE_CLIENT_ID, value: $(az identity show "${group[@]}" --name server --query clientId)}$environment
        probes:
          - {type: Startup, httpGet: {path: /readyz, port: 8000}, periodSeconds: 2, failureThreshold: 60}
          - {type: Readiness, httpGet: {path: /readyz, port: 8000}, periodSeconds: 5, failureThreshold: 2}
          - {type: Liveness, httpGet: {path: /healthz, port: 8000}, periodSeconds: 10, failureThreshold: 3}
    scale: {minReplicas: ${MIN_REPLICAS:-0}, maxReplicas: ${MAX_REPLICAS:-4}}
YAML
  az containerapp create "${group[@]}" --name "$app" --yaml "$file" >/dev/null
)

deploy() {
  local image="${1:-}" previous="" revision tag address
  if [ -z "$image" ]; then
    tag="$(git rev-parse --short=12 HEAD)-$(date -u +%Y%m%d%H%M%S)"
    az acr login --name "$registry"
    docker build --platform linux/amd64 --build-arg EXTRAS="$extras" \
      --build-arg REVISION="$(git rev-parse HEAD)" --tag "$image_name:$tag" .
    docker push "$image_name:$tag"
    image="$(docker inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image_name:$tag" |
      grep "^$image_name@")"
  fi
  if exists az containerapp show "${group[@]}" --name "$app"; then
    # Traffic is bound to a revision by name, so a new one gets none.
    # shellcheck disable=SC2016  # JMESPath
    previous="$(az containerapp ingress traffic show "${group[@]}" --name "$app" --query '[?weight > `0`].revisionName | [0]')"
    revision="$app--r$(date -u +%y%m%d%H%M%S)"
    az containerapp update "${group[@]}" --name "$app" --image "$image" --revision-suffix "${revision#"$app--"}" \
      --min-replicas "${MIN_REPLICAS:-0}" --max-replicas "${MAX_REPLICAS:-4}" >/dev/null
  else
    revision="$app--first"
    create_app "$image"
  fi
  address="$(az containerapp revision show "${group[@]}" --name "$app" --revision "$revision" --query properties.fqdn)"
  APP_KEY="$(az containerapp secret show "${group[@]}" --name "$app" --secret-name api-key --query value)"
  export APP_KEY
  python3 deploy/cloud/smoke.py "https://$address"
  az containerapp ingress traffic set "${group[@]}" --name "$app" --revision-weight "$revision=100" >/dev/null
  echo "https://$(az containerapp show "${group[@]}" --name "$app" --query properties.configuration.ingress.fqdn)"
  [ -z "$previous" ] || rollback_by \
    "az containerapp revision activate --resource-group $name --name $app --revision $previous" \
    "az containerapp ingress traffic set --resource-group $name --name $app --revision-weight $previous=100"
  for old in $(az containerapp revision list "${group[@]}" --name "$app" --query '[].name'); do
    [ "$old" = "$revision" ] ||
      az containerapp revision deactivate "${group[@]}" --name "$app" --revision "$old" >/dev/null
  done
}

rollback_by() {
  printf '%s\n' "to roll back:" "$@"
  [ -z "${GITHUB_STEP_SUMMARY:-}" ] ||
    { printf '%s\n' "Deployed. To roll back:" "" && printf '    %s\n' "$@"; } >>"$GITHUB_STEP_SUMMARY"
}

status() {
  az containerapp revision list "${group[@]}" --name "$app" --all --output table \
    --query '[].{revision: name, traffic: properties.trafficWeight, state: properties.runningState, image: properties.template.containers[0].image}' || true
  az acr manifest list-metadata --registry "$registry" --name server --top 5 --orderby time_desc \
    --query '[].[digest, createdTime]' || true
  az storage blob list --account-name "$storage" --container-name models --auth-mode login --query '[].name' || true
  database_status
}

down() {
  read -rp "delete $name in $subscription, but not the storage account $storage? type its name: " answer
  [ "$answer" = "$name" ] || { echo "nothing deleted" >&2; exit 1; }
  ! exists az containerapp show "${group[@]}" --name "$app" ||
    az containerapp delete "${group[@]}" --name "$app" --yes
  database_down
  ! exists az containerapp env show "${group[@]}" --name "$app" ||
    az containerapp env delete "${group[@]}" --name "$app" --yes
  ! exists az acr show "${group[@]}" --name "$registry" || az acr delete "${group[@]}" --name "$registry" --yes
  for identity in server deploy; do
    ! exists az identity show "${group[@]}" --name "$identity" || az identity delete "${group[@]}" --name "$identity"
  done
}

"$@"
