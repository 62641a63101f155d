#!/bin/sh
# Prints as JSON which Node.js the host has from its distribution, what node and npm in /usr/local/bin lead
# to, which archives are unpacked, and what the distribution offers. Changes nothing.
# $1: the distribution's package.
PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
package=$1

version() {
    if [ -x "$1" ]; then "$1" --version 2>/dev/null | sed -n 's/^v\([0-9.]*\)$/\1/p'; fi
}

offered() {
    if command -v apt-cache >/dev/null; then
        apt-cache policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9][^ ]*\)$/\1/p'
    else
        dnf --quiet --cacheonly list --available 'nodejs[0-9]*' 2>/dev/null |
            sed -n 's/^nodejs\([0-9]*\)[.].*/\1/p' | sort -un | tr '\n' ' '
    fi
}

system=$(version /usr/bin/node)
# Asking the package manager takes time and is only needed where something is to be installed.
if [ -n "$system" ]; then available=$system; else available=$(offered); fi
printf '{"system": "%s", "node": "%s", "npm": "%s", "unpacked": "%s", "available": "%s"}\n' \
    "$system" "$(readlink -f /usr/local/bin/node)" "$(readlink -f /usr/local/bin/npm)" \
    "$(ls /usr/local/lib/nodejs 2>/dev/null | tr '\n' ' ')" "$available"
