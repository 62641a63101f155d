"""The migrations table of the seed."""

testinfra_hosts = ["ansible://database"]


def query(host, statement):
    with host.sudo("postgres"):
        return host.check_output("psql -AtX -d roastify -c %s", statement)


def test_the_first_migration_is_recorded_once(host):
    assert query(host, "select version, name from migrations order by id") == "001|initial_schema"


def test_the_table_has_the_columns_of_the_seed(host):
    columns = query(
        host,
        "select column_name, data_type, is_nullable, character_maximum_length from information_schema.columns "
        "where table_name = 'migrations' and column_name in ('id', 'version', 'name', 'applied_at') order by 1",
    )
    assert columns.splitlines() == [
        "applied_at|timestamp without time zone|YES|",
        "id|integer|NO|",
        "name|character varying|NO|255",
        "version|character varying|NO|255",
    ]
