"""What setup left on the hosts: accounts, services and limits, not files for their own sake."""

import json

testinfra_hosts = ["ansible://app"]


def test_the_application_has_a_user_that_nobody_logs_in_as(host):
    user = host.user("roastify")
    assert user.shell.endswith("nologin")
    assert user.home == "/var/lib/roastify"


def test_logins_are_by_key_and_not_as_root(host):
    with host.sudo():
        settings = host.check_output("sshd -T").splitlines()
    assert {"permitrootlogin no", "passwordauthentication no"} <= set(settings)


def test_node_is_the_seeds_and_npm_works(host):
    assert host.check_output("node --version").startswith("v18.")
    assert host.check_output("npm --version").startswith("10.")


def test_the_pm2_daemon_belongs_to_systemd(application):
    pid = application.run("systemctl show --property MainPID --value pm2-roastify")
    user, arguments = application.run(f"ps -o user=,args= -p {pid}").split(maxsplit=1)
    assert user == "roastify"
    assert arguments.startswith("PM2 v7.0.4")


def test_workers_may_open_many_files(application):
    worker = application.workers[0]["pid"]
    limits = application.run(f"cat /proc/{worker}/limits")
    soft = int(next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3])
    assert soft >= 16_384


def test_logs_are_rotated(application):
    application.run("logrotate --debug /etc/logrotate.d/pm2-roastify")


def test_the_agent_would_ship_the_application_logs(application):
    settings = json.loads(application.run("cat /etc/amazon-cloudwatch-agent-src/roastify.json"))
    shipped = settings["logs"]["logs_collected"]["files"]["collect_list"]
    assert {log["log_group_name"] for log in shipped} == {"/aws/ec2/roastify"}
    patterns = " ".join(log["file_path"] for log in shipped)
    assert application.run(f"ls {patterns}").splitlines() == [
        "/srv/roastify/shared/logs/roastify.error.log",
        "/srv/roastify/shared/logs/roastify.out.log",
    ]
