"""The new migration ran, once."""

testinfra_hosts = ["ansible://database"]


def test_both_migrations_are_recorded_in_order(host):
    with host.sudo("postgres"):
        rows = host.check_output("psql -AtX -d roastify -c 'select version from migrations order by id'")
    assert rows.splitlines() == ["001", "002"]
