#!/bin/sh
# Creates and starts one machine of the sandbox, or leaves nothing of it.
#
#   create-host.sh DIRECTORY HOST LOGIN_USER ENGINE CONTAINER OPTION...
#
# Its host key is made here, on the controller, so that the first connection is
# already checked; it outlives the machine, in DIRECTORY/hosts/HOST.
set -eu
umask 077

directory=$1 host=$2 login_user=$3 engine=$4 container=$5
shift 5
own=$directory/hosts/$host

mkdir -p "$own"
[ -f "$own/ssh_host_ed25519_key" ] ||
    ssh-keygen -q -t ed25519 -N '' -C "$host" -f "$own/ssh_host_ed25519_key"

files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
mkdir -p "$files/etc/ssh" "$files/etc/ssl" "$files/home/$login_user/.ssh"
cp "$own/ssh_host_ed25519_key" "$own/ssh_host_ed25519_key.pub" "$files/etc/ssh/"
cp "$directory/id_ed25519.pub" "$files/home/$login_user/.ssh/authorized_keys"
cp "$directory/ca.crt" "$files/etc/ssl/database-ca.crt"
chmod 0644 "$files/home/$login_user/.ssh/authorized_keys" "$files/etc/ssl/database-ca.crt"

if "$engine" container inspect "$container" >/dev/null 2>&1; then
    echo "A container called $container exists, and is not of this sandbox." >&2
    echo "Remove or rename it, or choose another sandbox_container_prefix." >&2
    exit 1
fi
# What a killed run left of it holds the name, although the engine does not list it.
"$engine" rm --force "$container" >/dev/null 2>&1 || true
"$engine" create --name="$container" "$@" >/dev/null
trap 'rm -rf "$files"; "$engine" rm --force "$container" >/dev/null' EXIT
# Files only: a directory in the archive would change the owner and mode of the one that is there.
(cd "$files" && find . -type f | tar --create --owner=0 --group=0 --files-from=-) | "$engine" cp - "$container:/"
"$engine" start "$container"
trap 'rm -rf "$files"' EXIT
