"""Which tests one worker runs one after the other, where several share the suite."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    # What they share takes longer to make than most of them take.
    "tests/acceptance/test_console.py": "the console",
    "tests/acceptance/test_console_jobs.py": "the console's jobs",
    "tests/acceptance/test_node.py": "Node",
    "tests/contract/test_inboxes.py": "inboxes",
    "tests/contract/test_kafka.py": "Kafka",
    "tests/contract/test_kafka_topics.py": "topics of Kafka",
    "tests/contract/test_nats.py": "NATS",
    "tests/contract/test_redis_indexes.py": "indexes in Redis",
    "tests/unit/test_airport_data.py": "the year of flights",
    # Two at once would be too much for one machine.
    "tests/adversarial/test_services.py": "whole installations",
    "tests/adversarial/test_simulation.py": "whole installations",
}


class Together(LoadScopeScheduling):
    """Gives each test to whichever worker is free, and those that belong together to one."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(nodeid.partition("::")[0], nodeid)
