#!/bin/sh
# Finds the container engine that works on this machine, and how it works.
#
#   detect-engine.sh DIRECTORY
#
# Prints two lines: the engine (podman or docker), and the containers.conf that
# podman needs here, empty where its own settings do. The answer is tried, not
# guessed: a container with the machine's own /usr is started, first as podman is
# configured, then with the limits of this process (a machine without
# CAP_SYS_RESOURCE may not raise them), then with runc (crun refuses a hybrid
# cgroup tree). The containers.conf is written to DIRECTORY, the answer kept there
# until the engine, the limits or the machine's start change.
set -eu

directory=$(cd "$1" && pwd)
configuration=$directory/containers.conf
answer=$directory/engine
PATH=$PATH:/usr/sbin:/sbin
export PATH

engines() {
    if [ "$(id -u)" = 0 ] && command -v podman >/dev/null; then echo podman; fi
    if command -v docker >/dev/null; then echo docker; fi
}

# What the answer depends on.
fingerprint() {
    echo "$(engines) $(ulimit -Hn) $(cat /proc/sys/kernel/random/boot_id)"
    for program in podman docker crun runc netavark; do
        stat -L -c '%n %Y %s' "$(command -v $program || echo /dev/null)"
    done | grep -v '^/dev/null' || true
    if [ "${CONTAINERS_CONF:-}" != "$configuration" ]; then echo "${CONTAINERS_CONF:-}"; fi
}

# The smallest container there is: no image, no network, the machine's own /usr.
container_starts() {
    podman run --rm --systemd=always --network=none --volume /usr:/usr:ro --rootfs "$root" /usr/bin/true \
        >/dev/null 2>>"$complaints"
}

# podman lowers its own limit of processes to pid_max, and no container may have more.
limits() {
    awk -v pid_max="$(cat /proc/sys/kernel/pid_max)" '
        /^Max open files/ && $5 != "unlimited" { limit["nofile"] = $5 }
        /^Max processes/ { limit["nproc"] = ($4 == "unlimited" || $4 > pid_max) ? pid_max : $4 }
        END {
            for (name in limit) list = list sprintf("%s\"%s=%s:%s\"", list ? ", " : "", name, limit[name], limit[name])
            printf "[containers]\ndefault_ulimits = [%s]\n", list
        }' /proc/self/limits
}

podman_works() {
    root=$(mktemp -d)
    trap 'rm -rf "$root" "$complaints"' EXIT
    mkdir "$root/dev" "$root/etc" "$root/proc" "$root/run" "$root/sys" "$root/tmp" "$root/usr" "$root/var"
    for entry in bin lib lib64 sbin; do
        if [ -L "/$entry" ]; then ln -s "usr/$entry" "$root/$entry"; fi
    done

    if [ "${CONTAINERS_CONF:-}" = "$configuration" ]; then unset CONTAINERS_CONF; fi
    rm -f "$configuration"
    container_starts && return

    export CONTAINERS_CONF="$configuration"
    limits >"$configuration"
    container_starts && return
    if command -v runc >/dev/null; then
        printf '[engine]\nruntime = "runc"\n' >"$configuration"
        container_starts && return
        { limits; printf '[engine]\nruntime = "runc"\n'; } >"$configuration"
        container_starts && return
    fi
    rm -f "$configuration"
    return 1
}

complaints=$(mktemp)
trap 'rm -f "$complaints"' EXIT

if [ -f "$answer" ] && [ "$(sed 1,2d "$answer")" = "$(fingerprint)" ]; then
    head -n 2 "$answer"
    exit
fi
rm -f "$answer"
wanted=$(fingerprint)

for engine in $(engines); do
    case $engine in
        podman) podman_works || continue ;;
        docker) docker info >/dev/null 2>>"$complaints" || continue ;;
    esac
    { echo "$engine"; if [ -f "$configuration" ]; then echo "$configuration"; else echo; fi; echo "$wanted"; } >"$answer"
    head -n 2 "$answer"
    exit
done

{
    echo "No container engine works on this machine."
    if [ -z "$(engines)" ]; then
        echo "Neither podman (as root) nor docker is installed."
    fi
    sort -u "$complaints"
    echo "Install one: apt-get install podman crun runc netavark iptables"
} >&2
exit 1
