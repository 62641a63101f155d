#!/bin/sh
# Creates the sandbox's certificate authority and the certificate of a database server.
#
#   create-certificates.sh DIRECTORY HOST ADDRESS
#
# DIRECTORY/ca.crt is what clients need for sslmode=verify-full; the server's files
# are in DIRECTORY/hosts/HOST.
set -eu
umask 077

directory=$1 host=$2 address=$3
own=$directory/hosts/$host
mkdir -p "$own"

if [ ! -f "$directory/ca.crt" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days 3650 \
        -subj '/CN=Sandbox database CA' -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$directory/ca.key" -out "$directory/ca.crt.new" 2>/dev/null
    mv "$directory/ca.crt.new" "$directory/ca.crt"
fi

request=$(mktemp)
extensions=$(mktemp)
trap 'rm -f "$request" "$extensions"' EXIT
printf 'subjectAltName=DNS:%s,IP:%s\nextendedKeyUsage=serverAuth\n' "$host" "$address" >"$extensions"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -subj "/CN=$host" \
    -keyout "$own/server.key" -out "$request" 2>/dev/null
openssl x509 -req -in "$request" -CA "$directory/ca.crt" -CAkey "$directory/ca.key" -CAcreateserial \
    -days 3650 -sha256 -extfile "$extensions" -out "$own/server.crt.new" 2>/dev/null
mv "$own/server.crt.new" "$own/server.crt"
chmod 0644 "$directory/ca.crt" "$own/server.crt"
