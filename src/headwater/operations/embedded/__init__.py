"""A Postgres of our own for one machine: binaries from a wheel, one folder, many processes."""

from headwater.operations.embedded.binaries import Binaries
from headwater.operations.embedded.server import EmbeddedPostgres

__all__ = ["Binaries", "EmbeddedPostgres"]
