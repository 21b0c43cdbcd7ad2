"""What a URL says of how to reach Kafka. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from headwater.errors import SettingError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_MECHANISMS = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})


def settings_of(url: str, variable: str) -> Mapping[str, str]:
    """The settings of librdkafka's clients that a URL stands for.

    ``kafka://host:9092,host2:9092``, or ``kafka+ssl://login:password@host:9093?mechanism=SCRAM-SHA-512&ca=/path``. Raises
    SettingError, which never shows the URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may hold what the URL does
        parts = urlsplit("")
    login, _, hosts = parts.netloc.rpartition("@")
    addresses = [one.strip() for one in hosts.split(",") if one.strip()]
    options = dict(parse_qsl(parts.query))
    if (
        parts.scheme not in {"kafka", "kafka+ssl"}
        or parts.path not in {"", "/"}
        or not addresses
        or any(not _HOST.fullmatch(one) for one in addresses)
        or not options.keys() <= {"mechanism", "ca"}
    ):
        raise SettingError(
            f"{variable} is not a URL of Kafka.",
            hint=f"Set {variable} to kafka://host:9092,host2:9092 or "
            "kafka+ssl://login:password@host:9093?mechanism=SCRAM-SHA-512.",
        )
    encrypted = parts.scheme == "kafka+ssl"
    settings = {"bootstrap.servers": ",".join(addresses)}
    if "ca" in options:
        settings["ssl.ca.location"] = options["ca"]
    mechanism = options.get("mechanism", "PLAIN").upper()
    if login:
        name, _, password = login.partition(":")
        settings |= {
            "sasl.mechanism": mechanism,
            "sasl.username": unquote(name),
            "sasl.password": unquote(password),
        }
    if mechanism not in _MECHANISMS or (login and mechanism == "PLAIN" and not encrypted):
        raise SettingError(
            f"{variable} would send the password in clear, or names a mechanism that is not known.",
            hint="Use kafka+ssl://, or mechanism=SCRAM-SHA-256 or SCRAM-SHA-512.",
        )
    protocol = ("SASL_" if login else "") + ("SSL" if encrypted else "PLAINTEXT")
    return settings | {"security.protocol": protocol}
