# shellcheck shell=bash disable=SC2034,SC2154  # part of cloud.sh, which has and uses the variables
# The prediction log: Azure Database for PostgreSQL, flexible server.
extras+=,postgresql
database="$name-$suffix" # 3 to 63 lower-case letters, digits and hyphens, unique world-wide

database_password() { echo "A$(openssl rand -hex 24)"; } # Azure wants three kinds of characters

database_up() {
  exists az postgres flexible-server show "${group[@]}" --name "$database" ||
    # 0.0.0.0 lets Azure's own addresses connect, and nobody else
    az postgres flexible-server create "${group[@]}" --name "$database" --location "$location" \
      --tier Burstable --sku-name "${DATABASE_SKU:-Standard_B1ms}" --storage-size 32 --version 17 \
      --admin-user app --admin-password "$(database_password)" --public-access 0.0.0.0 \
      --backup-retention 7 --yes >/dev/null
  exists az postgres flexible-server db show "${group[@]}" --server-name "$database" --name app ||
    az postgres flexible-server db create "${group[@]}" --server-name "$database" --name app >/dev/null
}

database_connect() { # gives the database a new password, which only the app's secret keeps
  local password
  password="$(database_password)"
  az postgres flexible-server update "${group[@]}" --name "$database" --admin-password "$password" >/dev/null
  secrets="
      - {name: database-url, value: \"postgresql://app:$password@$database.postgres.database.azure.com:5432/app?sslmode=require\"}"
  environment="
          - {name: APP_SPOOL_DIR, value: /tmp/spool}
          - {name: APP_DATABASE_URL, secretRef: database-url}"
}

database_status() {
  az postgres flexible-server show "${group[@]}" --name "$database" --query '[state, version, sku.name]' || true
}

database_down() {
  ! exists az postgres flexible-server show "${group[@]}" --name "$database" ||
    az postgres flexible-server delete "${group[@]}" --name "$database" --yes
}
