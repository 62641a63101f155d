"""The generated reference says what the code says."""

import reference


def test_every_page_is_up_to_date():
    stale = [str(path) for path, text in reference.pages().items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run `make reference`"


def test_markup_becomes_code():
    text = reference.plain(["See O(release) and RV(problems),", "or M(roastify.ops.pg_migrate)."])
    assert text == "See `release` and `problems`, or `pg_migrate`."
