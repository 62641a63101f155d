#!/bin/bash
# Creates the base image of the sandbox: a minimal Debian.
#
#   create-base-image.sh CACHE ENGINE NAME SOURCE IMAGE TIMEOUT RELEASE MIRROR
#
# SOURCE is registry (pull IMAGE), packages (build a root filesystem of RELEASE from
# MIRROR, or from the mirror that this machine uses) or auto: the registry first, and
# from then on packages if it did not answer in TIMEOUT seconds.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

cache=$1 engine=$2 name=$3 source=$4 image=$5 timeout=$6 release=$7 mirror=$8
unanswered=$cache/registry-unanswered

if [ "$source" = registry ] || { [ "$source" = auto ] && [ ! -e "$unanswered" ]; }; then
    if timeout "$timeout" "$engine" pull --quiet "$image"; then
        "$engine" tag "$image" "$name"
        "$engine" rmi "$image"
        exit
    fi
    if [ "$source" = registry ]; then
        echo "The registry did not give $image within $timeout s. Try sandbox_image_source=packages." >&2
        exit 1
    fi
    touch "$unanswered"
fi

# A line of sources.list, with the archive of that label that this machine uses; nothing if it uses none.
sources() {
    local label=$1 suite=$2 found=
    found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Label: $label" 2>/dev/null | head -n 1) || true
    [ -z "$found" ] || echo "deb $found $suite main"
}
if [ -n "$mirror" ]; then
    lines="deb $mirror $release main"
else
    lines="$(sources Debian "$release")
$(sources Debian "$release-updates")
$(sources Debian-Security "$release-security")"
fi
# On a machine that is no Debian the builders know where Debian's archive is.
case $lines in *deb*) from=(- -) ;; *) from=() ;; esac

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if command -v mmdebstrap >/dev/null; then
    # Without manuals and translations, which nobody reads there.
    mmdebstrap --quiet --mode=root --variant=minbase --keyring="$keyring" --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='force-unsafe-io' \
        "$release" "${from[@]}" <<<"$lines" | "$engine" import - "$name"
elif command -v debootstrap >/dev/null; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    # shellcheck disable=SC2086 # the first line is "deb MIRROR RELEASE main", or there is none
    set -- $lines
    debootstrap --variant=minbase --keyring="$keyring" "$release" "$root/root" ${2:+"$2"} >&2
    [ $# = 0 ] || echo "$lines" >"$root/root/etc/apt/sources.list"
    rm -rf "$root"/root/var/cache/apt/archives/*.deb
    tar --create --directory="$root/root" --numeric-owner . | "$engine" import - "$name"
else
    echo "No image builder. Install one: apt-get install mmdebstrap debian-archive-keyring" >&2
    exit 1
fi
