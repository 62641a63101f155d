#!/bin/sh
# Brings the running kernel to the settings of a file of sysctl.d ($1) and prints what it changed.
# Settings that this kernel does not have, or that cannot be written here, are passed over.
set -eu
sed -n 's/^-\{0,1\}\([a-z][^ =]*\) *= *\(.*\)$/\1 \2/p' "$1" | while read -r key value; do
    file=/proc/sys/$(echo "$key" | tr . /)
    if [ -w "$file" ] && [ "$(tr '\t' ' ' < "$file")" != "$value" ]; then
        echo "$key = $value"
        echo "$value" > "$file"
    fi
done
