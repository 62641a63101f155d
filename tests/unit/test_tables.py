"""Tables in plain text."""

from ansible_collections.roastify.ops.plugins.module_utils.tables import ambiguous, table


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [{"host": "app1", "version": "1.10.0", "healthy": True}, {"host": "a", "version": None, "healthy": False}]
    assert table(rows, ["host", "version", "healthy"]) == [
        "host  version  healthy",
        "----  -------  -------",
        "app1  1.10.0   yes",
        "a     -        no",
    ]


def test_wide_letters_take_the_room_that_they_take_on_a_terminal():
    rows = [{"by": "川上", "at": "noon"}, {"by": "Zoë", "at": "noon"}]
    assert table(rows, ["by", "at"]) == ["by    at", "----  ----", "川上  noon", "Zoë   noon"]


def test_a_cell_stays_on_its_line():
    assert table([{"note": "one\n two"}], ["note"]) == ["note", "-------", "one two"]


def test_versions_that_do_not_tell_releases_apart():
    releases = [("1", "a"), ("1", "b"), ("2", "c"), ("2", "c"), ("3", None), ("3", "d"), (None, "e"), (None, "f")]
    assert ambiguous(releases) == {"1"}
    assert ambiguous([]) == frozenset()
