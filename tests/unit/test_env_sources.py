"""Variables from several places."""

from ansible_collections.roastify.ops.plugins.module_utils.env_sources import Source, merge

INVENTORY = Source("inventory", {"PORT": 5000, "PG_PASSWORD": None, "JWT_SECRET": "canary-1"}, {"PORT": "all.yml:3"})
STORE = Source("Parameter Store", {"PG_PASSWORD": "canary-2", "JWT_SECRET": "canary-3"}, {})


def test_null_leaves_a_variable_to_another_source():
    merged = merge([INVENTORY, Source("store", {"PG_PASSWORD": "word"}, {})])
    assert merged.variables["PG_PASSWORD"] == "word"
    assert merged.places == {"PORT": "all.yml:3", "PG_PASSWORD": "store", "JWT_SECRET": "inventory"}
    assert merged.problems == []


def test_a_variable_of_two_sources_is_a_problem_that_names_both_and_no_value():
    merged = merge([INVENTORY, STORE])
    (problem,) = merged.problems
    assert merged.places[problem.variable] == "inventory"
    assert problem.text("") == (
        "JWT_SECRET is also set in Parameter Store. Keep the one that is meant, and remove the other or set it to null."
    )
    assert problem.severity == "error"


def test_no_source_no_variable():
    assert merge([]).variables == {}
