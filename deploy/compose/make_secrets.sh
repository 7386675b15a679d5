#!/bin/sh
# Make the secrets of compose.yaml that do not exist yet; nothing is overwritten.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
cd secrets
key() { head -c 32 /dev/urandom | base64 | tr '+/' '-_'; }
password() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
[ -e postgres_password ] || password > postgres_password
[ -e database_owner_url ] || printf 'postgres://fks:%s@postgres:5432/fks' "$(cat postgres_password)" > database_owner_url
[ -e database_url ] || printf 'postgres://fks_app:%s@postgres:5432/fks' "$(password)" > database_url
[ -e secret_key ] || key > secret_key
[ -e secret_key_fallbacks ] || : > secret_key_fallbacks
[ -e credential_keys ] || key > credential_keys
[ -e grafana_password ] || head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n' > grafana_password
if [ ! -e tls.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj "/CN=$FKS_HOST" \
    -addext "subjectAltName=DNS:$FKS_HOST" -keyout tls.key -out tls.crt 2>/dev/null
fi
# The containers run as users of their own and read these through a bind mount.
chmod 644 ./*
chmod 711 .
