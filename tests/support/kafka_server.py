"""A Kafka of a test's own: librdkafka's mock cluster, one broker, in a process of its own.

It keeps topics in memory, so it can be stopped and go on, but not start again with what it had. It has no CreateTopics and no
DescribeConfigs, and it does not fence: tests make topics here, and say themselves what a broker that fences answers.

``python kafka_server.py`` answers commands, a line each.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import confluent_kafka

PRODUCE, END_OF_TRANSACTION = 0, 26
"""Numbers of Kafka's requests."""
FENCED = 90
"""The number of Kafka's error for producers whose transactional id another has taken."""
_BROKER = 1


class KafkaServer:
    """A broker that can be stopped in its tracks, and told to fail."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.bootstrap = self._process.stdout.readline().strip()

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    def _ask(self, *words: object) -> None:
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer == "0", (words, answer)

    def topic(self, name: str, partitions: int = 1) -> None:
        self._ask("topic", name, partitions)

    def delete(self, name: str) -> None:
        self._ask("delete", name)

    def truncate(self, name: str, before: int) -> None:
        """As retention does: what is before an offset is gone."""
        self._ask("truncate", name, before)

    def fail(self, request: int, error: int, times: int = 1) -> None:
        """The next requests of a kind fail."""
        self._ask("fail", request, error, times)

    def down(self) -> None:
        """Refuses and cuts connections; keeps what it has."""
        self._ask("down")

    def up(self) -> None:
        self._ask("up")

    def stop(self) -> None:
        """Nothing is answered, connections stay."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Mock:
    """The functions of librdkafka's mock cluster, which the wheel's library has."""

    def __init__(self) -> None:
        folder = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
        self._library = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
        reason = ctypes.create_string_buffer(512)
        handle = self._call("rd_kafka_new", 0, None, reason, len(reason), gives=ctypes.c_void_p)
        assert handle, reason.value
        self.cluster = self._call(
            "rd_kafka_mock_cluster_new", _pointer(handle), _BROKER, gives=ctypes.c_void_p
        )
        found = self.on("cluster_bootstraps", gives=ctypes.c_char_p)
        self.bootstrap = found.decode()

    def _call(self, name, *arguments, gives=ctypes.c_int):
        function = getattr(self._library, name)
        function.restype = gives
        return function(*arguments)

    def on(self, name, *arguments, gives=ctypes.c_int):
        return self._call(f"rd_kafka_mock_{name}", _pointer(self.cluster), *arguments, gives=gives)

    def topic(self, name, partitions):
        return self.on("topic_create", name.encode(), int(partitions), 1)

    def delete(self, name):
        return self.on("topic_delete", name.encode())

    def truncate(self, name, before):
        return self.on("partition_delete_records", name.encode(), 0, ctypes.c_int64(int(before)))

    def fail(self, request, error, times):
        errors = (ctypes.c_int * int(times))(*[int(error)] * int(times))
        self.on(
            "push_request_errors_array", ctypes.c_int16(int(request)),
            ctypes.c_size_t(int(times)), errors, gives=None,
        )  # fmt: skip
        return 0

    def down(self):
        return self.on("broker_set_down", _BROKER)

    def up(self):
        return self.on("broker_set_up", _BROKER)


def _pointer(value):
    return ctypes.c_void_p(value)


def _serve() -> None:
    mock = _Mock()
    print(mock.bootstrap, flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        print(getattr(mock, command)(*arguments), flush=True)
    os._exit(0)


if __name__ == "__main__":
    _serve()
