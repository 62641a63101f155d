#!/usr/bin/env bash
# The least that a deployment of a built artifact to many hosts can be: send, unpack, rename, reload.
#
#   floor.sh deploy ARTIFACT RELEASE ADDRESS...
#   floor.sh rollback ADDRESS...
#
# All hosts at the same time, one connection to each. It checks nothing: not what arrived, not whether it serves.
# BENCH_KEY and BENCH_KNOWN_HOSTS say how to reach the hosts.
set -euo pipefail

action=$1
shift
artifact='' release=''
if [ "$action" = deploy ]; then
    artifact=$1 release=$2
    shift 2
fi
sockets=$(mktemp -d)
trap 'rm -rf "$sockets"' EXIT
options=(-q -o "ControlMaster=auto" -o "ControlPath=$sockets/%h" -o "ControlPersist=10" -o "IdentitiesOnly=yes"
    -o "StrictHostKeyChecking=yes" -o "UserKnownHostsFile=$BENCH_KNOWN_HOSTS" -i "$BENCH_KEY")

reload='PM2_HOME=~/.pm2-floor pm2 startOrReload shared/ecosystem.config.js'
# shellcheck disable=SC2016 # the host expands these
rename='ln -sfn "releases/$release" current.new && mv -T current.new current'
# shellcheck disable=SC2016
live='$(basename "$(readlink current)")'
deploy='mkdir "releases/$release" && tar -xzf "/tmp/$release" -C "releases/$release" && rm "/tmp/$release" &&
    ln -s ../../shared/.env "releases/$release/.env" && ln -s ../../shared/uploads "releases/$release/uploads" &&
    '$rename' && '$reload' && ls -d releases/* | head -n -5 | xargs -r rm -rf'
rollback='release=$(ls releases | grep -B 1 -x "'$live'" | head -n 1) && '$rename' && '$reload

one() {
    if [ "$action" = deploy ]; then
        scp "${options[@]}" "$artifact" "admin@$1:/tmp/$release"
        ssh "${options[@]}" "admin@$1" "cd /srv/floor && release=$release && $deploy"
    else
        ssh "${options[@]}" "admin@$1" "cd /srv/floor && $rollback"
    fi
    ssh "${options[@]}" -O exit "admin@$1"
}

jobs=()
for address in "$@"; do
    one "$address" &
    jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
