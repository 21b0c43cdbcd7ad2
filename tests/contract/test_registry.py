"""The registry's checks: the quick one, the one in words, and the way to the right type."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.postgres

FIELDS = {
    "text": {"type": "string"},
    "short": {"type": "string", "minLength": 1, "maxLength": 3},
    "whole": {"type": "integer"},
    "small": {"type": "integer", "minimum": -2, "maximum": 2},
    "real": {"type": "number"},
    "truth": {"type": "boolean"},
    "nothing": {"type": "null"},
    "choice": {"enum": ["a", "b\n\"c'", 1, None, True]},
    "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "either": {"anyOf": [{"type": "integer"}, {"type": "string", "format": "date"}]},
    "anything": {},
    "money": {"type": "string", "format": "decimal"},
    "day": {"type": "string", "format": "date"},
    "moment": {"type": "string", "format": "date-time"},
    "list": {"type": "array", "items": {"type": "integer"}},
    "odd 'name\" $.x": {"type": "string"},
}
VALUES = [
    None, True, False, 0, 1, -2, 3, 1.0, 1.5, -1e300, 9223372036854775807, 9223372036854775808, "", "a",
    "abcd", "b\n\"c'", "null", "1", "12.50", "12.", "2024-02-29", "2023-02-29", "2024-01-01T00:00:00Z",
    "2024-01-01T24:00:00Z", [], [1], ["a"], [[1]], [None], {}, {"a": 1},
]  # fmt: skip
FITTING = {
    "text": "a", "short": "a", "whole": 1, "small": 1, "real": 1.5, "truth": True, "nothing": None, "choice": "a",
    "maybe": None, "either": 1, "anything": 1, "money": "1.5", "day": "2024-02-29",
    "moment": "2024-01-01T00:00:00Z", "list": [1], "odd 'name\" $.x": "a",
}  # fmt: skip

COMPARE = """
SELECT d.data, headwater_checks.{check}(d.stream, d.data), headwater_checks.{reason}(d.stream, d.data)
FROM (SELECT 'thing/' || (data ->> 'id') AS stream, data FROM jsonb_array_elements(%s) AS e(data)) AS d
"""


def register(admin, name, fields, required):
    schema = {"type": "object", "properties": {"id": {"type": "string"}} | fields, "required": ["id", *required]}  # fmt: skip
    admin.execute(
        "SELECT headwater.register_type(%s, 1, 'thing/{id}', %s)", [name, json.dumps(schema)]
    )
    (check,) = admin.execute(
        "SELECT check_name FROM headwater.event_types WHERE type = %s", [name]
    ).fetchone()
    return check


@pytest.mark.parametrize("required", [True, False], ids=["required", "optional"])
def test_the_quick_check_and_the_one_in_words_agree(database, required):
    with database.admin() as admin:
        check = register(admin, "thing.made", FIELDS, list(FIELDS) if required else [])
        whole = {"id": "1"} | FITTING
        tried = [whole | {field: value} for field in FIELDS for value in VALUES]
        tried += [{k: v for k, v in whole.items() if k != field} for field in FIELDS]
        tried += [whole | {"more": 1}, [], "text", 1, None, [whole]]
        statement = COMPARE.format(check=check, reason=check.replace("check", "reason"))
        rows = admin.execute(statement, [json.dumps(tried)]).fetchall()
    assert [row for row in rows if row[1] != row[2]] == []
    fits = sum(row[1] is None for row in rows)
    assert len(FIELDS) < fits < len(rows) / 2


def test_each_of_many_types_is_checked_by_its_own_rule(database):
    with database.admin() as admin:
        names = [f"thing.t{number}" for number in range(37)]
        for number, name in enumerate(names):
            register(admin, name, {f"field{number}": {"type": "integer"}}, [f"field{number}"])
        for number, name in enumerate(names):
            data = json.dumps({"id": "1", f"field{number}": 1})
            refusals = [
                admin.execute(
                    "SELECT headwater.refusal(%s, %s, 'thing/1', %s)", [other, version, data]
                ).fetchone()[0]
                for other, version in [
                    (name, 1),
                    (name, 2),
                    (names[number - 1], 1),
                    (name + "x", 1),
                    (None, 1),
                ]
            ]
            assert [refusal and refusal[:5] for refusal in refusals] == [
                None,
                "HW003",
                "HW004",
                "HW003",
                "HW003",
            ]
