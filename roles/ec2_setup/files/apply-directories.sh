#!/bin/sh
# Makes the directories that a file of tmpfiles.d ($1) describes, and says "changed" if there was need.
set -eu
look() { sed -n 's/^d \([^ ]*\) .*/\1/p' "$1" | while read -r directory; do stat -c '%n %U %G %a' "$directory" 2>&1 || true; done; }
before=$(look "$1")
systemd-tmpfiles --create "$1"
if [ "$before" != "$(look "$1")" ]; then echo changed; fi
