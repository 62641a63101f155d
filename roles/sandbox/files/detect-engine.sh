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

# A configuration of the user's own is tried first; ours, exported by the Makefile, is none.
if [ "${CONTAINERS_CONF:-}" = "$configuration" ] || [ ! -f "${CONTAINERS_CONF:-/}" ]; then unset CONTAINERS_CONF; fi

engines() {
    if [ "$(id -u)" = 0 ] && command -v podman >/dev/null; then echo podman; fi
    if command -v docker >/dev/null; then echo docker; fi
}

# What the answer depends on.
fingerprint() {
    echo "$(engines | xargs) $(ulimit -Hn) $(cat /proc/sys/kernel/random/boot_id) ${CONTAINERS_CONF:-}"
    for program in podman docker crun runc netavark; do
        path=$(command -v $program) && stat -L -c '%n %Y %s' "$path"
    done || true
}

# The smallest container there is: no image, no network, the machine's own /usr.
container_starts() {
    podman run --rm --systemd=always --network=none --volume /usr:/usr:ro --rootfs "$work/root" /usr/bin/true \
        >/dev/null 2>>"$work/complaints"
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
may_raise_limits() { [ $((0x$(awk '/^CapEff/ {print $2}' /proc/self/status) >> 24 & 1)) = 1 ]; }
other_runtime() { printf '[engine]\nruntime = "runc"\n'; }

# Leaves the path of the containers.conf that podman needs in $needed.
podman_works() {
    (cd "$work/root" && mkdir dev etc proc run sys tmp usr var)
    for entry in bin lib lib64 sbin; do
        if [ -L "/$entry" ]; then ln -s "usr/$entry" "$work/root/$entry"; fi
    done

    needed=${CONTAINERS_CONF:-}
    # Newer versions of podman run within the limits of this process, but do not build within them.
    if { [ -n "$needed" ] || may_raise_limits; } && container_starts; then
        if [ -z "$needed" ]; then rm -f "$configuration"; fi
        return
    fi
    export CONTAINERS_CONF="$work/containers.conf"
    limits >"$CONTAINERS_CONF"
    if ! container_starts; then
        command -v runc >/dev/null || return 1
        other_runtime >"$CONTAINERS_CONF"
        if ! container_starts; then
            { limits; other_runtime; } >"$CONTAINERS_CONF"
            container_starts || return 1
        fi
    fi
    mv "$CONTAINERS_CONF" "$configuration"
    needed=$configuration
}

wanted=$(fingerprint)
if [ -f "$answer" ] && [ "$(sed 1,2d "$answer")" = "$wanted" ]; then
    head -n 2 "$answer"
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
needed=
for engine in $(engines); do
    case $engine in
        podman) podman_works || continue ;;
        docker) docker info >/dev/null 2>>"$work/complaints" || continue ;;
    esac
    printf '%s\n' "$engine" "$needed" "$wanted" >"$work/answer"
    mv "$work/answer" "$answer"
    head -n 2 "$answer"
    exit
done

{
    echo "No container engine works on this machine."
    if [ -n "$(engines)" ]; then
        echo "Tried, without success: $(engines | xargs). They say:"
        sort -u "$work/complaints"
    else
        echo "Neither podman (for root) nor docker is there."
        echo "Install one, as root: apt-get install podman crun runc netavark iptables nftables"
    fi
} >&2
exit 1
