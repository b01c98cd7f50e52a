# shellcheck shell=bash disable=SC2034,SC2154  # part of cloud.sh, which has and uses the variables
# The prediction log: Cloud SQL for PostgreSQL, reached through Cloud Run's own connector.
address="$project:$region:$name"
# The file system is memory there, so little may wait for the database.
environment+=",APP_SPOOL_DIR=/tmp/spool,APP_LOG_MEGABYTES=64"
secrets+=",APP_DATABASE_URL=$name-database-url:latest"
flags+=(--set-cloudsql-instances="$address")
extras+=,postgresql

database_up() {
  local password
  exists gcloud sql instances describe "$name" ||
    gcloud sql instances create "$name" --database-version=POSTGRES_17 --edition=enterprise \
      --tier="${DATABASE_TIER:-db-f1-micro}" --region="$region" --storage-size=10GB \
      --storage-auto-increase --backup-start-time=03:00 --retained-backups-count=7 \
      --ssl-mode=ENCRYPTED_ONLY --deletion-protection
  exists gcloud sql databases describe app --instance="$name" ||
    gcloud sql databases create app --instance="$name"
  if ! exists gcloud secrets versions access latest --secret="$name-database-url"; then
    password="$(openssl rand -hex 24)"
    gcloud sql users create app --instance="$name" --password="$password"
    printf 'postgresql://app:%s@/app?host=/cloudsql/%s' "$password" "$address" | # pragma: allowlist secret
      secret "$name-database-url"
  fi
  grant projects add-iam-policy-binding "$project" --condition=None \
    "serviceAccount:$server" roles/cloudsql.client
}

database_status() {
  gcloud sql instances describe "$name" --format='yaml(state,databaseVersion,settings.tier)' || true
}

database_down() {
  exists gcloud sql instances describe "$name" || return 0
  gcloud sql instances patch "$name" --no-deletion-protection
  gcloud sql instances delete "$name"
  gcloud secrets delete "$name-database-url"
  gcloud projects remove-iam-policy-binding "$project" --condition=None \
    --member="serviceAccount:$server" --role=roles/cloudsql.client
}
