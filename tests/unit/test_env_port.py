"""The application listens where the deployment asks it."""

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.env_port import port_problems

RULES = {"type": "port", "default": 4000, "environments": {"production": {"default": 5000}}}


@pytest.mark.parametrize(
    ("variables", "rules"),
    [
        ({"PORT": 5000}, {}),
        ({"PORT": "5000"}, RULES),
        ({"PORT": " 05000"}, RULES),
        ({}, {}),
        ({}, RULES),
        ({"PORT": None}, RULES),
        # Another rule tells it.
        ({"PORT": "five"}, {}),
        ({"PORT": True}, {}),
        ({"PORT": ["5001"]}, {}),
    ],
)
def test_the_same_port_and_what_is_no_port_are_no_problem(variables, rules):
    assert port_problems(variables, rules, "production", 5000) == []


def test_another_port_is_told_with_both_ways_out():
    (problem,) = port_problems({"PORT": 5001}, RULES, "production", 5000)
    assert (problem.severity, problem.variable, problem.found) == ("error", "PORT", "5001")
    assert problem.text() == (
        "PORT is 5001, but a deployment asks the application for its health at port 5000. "
        "Set PORT to 5000, or the port of the deployment (app_port, which is app_release_port) to 5001."
    )


def test_the_default_of_the_environment_counts_where_it_is_not_set():
    (problem,) = port_problems({}, RULES, "", 5000)
    assert problem.message.startswith("PORT is not set, and 4000 by default, but")
    assert port_problems({}, RULES, "production", 4000)
