"""The truth in Postgres: append, read in order, streams, idempotency."""

from headwater.log.carrying import carrying, caused_by
from headwater.log.database import Connection, Database
from headwater.log.reading import LogReader
from headwater.log.shared_commits import SharedCommits
from headwater.log.ticker import Generations, Ticker
from headwater.log.tokens import LogIdentity, Token
from headwater.log.writing import Fact, Writer, Written

__all__ = [
    "Connection",
    "Database",
    "Fact",
    "Generations",
    "LogIdentity",
    "LogReader",
    "SharedCommits",
    "Ticker",
    "Token",
    "Writer",
    "Written",
    "carrying",
    "caused_by",
]
