#!/bin/sh
# Run as root on each host, after setup.yml: what Capistrano and the floor find there, as directories that belong to the
# login user, and a log of sshd that tells every session.
#
#   prepare-host.sh USER SCRIPT INSTANCES NAME:PORT...
set -eu

user=$1 script=$2 instances=$3
shift 3
for peer in "$@"; do
    name=${peer%:*} root=/srv/${peer%:*}
    install -d -o "$user" -g "$user" "$root" "$root/releases" "$root/shared" "$root/shared/uploads"
    echo "PORT=${peer#*:}" >"$root/shared/.env"
    cat >"$root/shared/ecosystem.config.js" <<END
module.exports = {
  apps: [
    {
      name: '$name',
      cwd: '$root/current',
      script: '$root/current/$script',
      exec_mode: 'cluster',
      instances: $instances,
    },
  ],
};
END
    chown "$user:$user" "$root/shared/.env" "$root/shared/ecosystem.config.js"
done
# Of two settings the first one counts.
echo "LogLevel VERBOSE" >/etc/ssh/sshd_config.d/00-bench.conf
systemctl reload ssh.service
