"""A writer in plain SQL, alone in a process: URL, name and seed. Prints the marks of each commit.

Run by the attack, killed by it at the end.
"""

from __future__ import annotations

import sys
from itertools import count
from random import Random

import psycopg
from marked import APPEND, SET_TENANT


def main(url: str, name: str, seed: str) -> None:
    random = Random(f"{seed} {name}")
    numbers = count(1)
    while True:
        try:
            with psycopg.connect(
                url, autocommit=True, application_name="attack process"
            ) as connection:
                connection.execute("SET ROLE headwater_app")
                while True:
                    marks = [f"{name}-{next(numbers)}" for _ in range(random.randint(1, 5))]
                    with connection.transaction():
                        connection.execute(SET_TENANT, {"tenant": "east"})
                        for mark in marks:
                            connection.execute(APPEND, {"line": name, "mark": mark})
                            if random.random() < 0.1:
                                connection.execute("SELECT pg_sleep(%s)", [random.random() / 100])
                    print(*marks, flush=True)
        except psycopg.OperationalError:
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])
