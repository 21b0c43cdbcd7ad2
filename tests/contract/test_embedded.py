"""The embedded Postgres on real processes: shared, killed, recovered, never left behind.

Members that are killed are processes of their own: this file run as a program.
"""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from headwater.errors import EmbeddedPostgresError
from headwater.operations.embedded import Binaries, EmbeddedPostgres
from headwater.operations.embedded.placement import STATE_FOLDER

pytestmark = pytest.mark.postgres

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
DEADLINE_SECONDS = 60
ROOT = os.geteuid() == 0
# What processes do with each other hangs on the supervisor, not on the version of Postgres.
ONE_VERSION = pytest.mark.parametrize("binaries", ["wheel"], indirect=True)


def until(condition, what: str):
    """Wait for what happens, not for time; fail when it does not happen."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        os.sched_yield()
    return result


def state(pid: int) -> str:
    """The letter of a process's state; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def ended(pid: int) -> bool:
    return state(pid) in {"", "Z", "X"}


def guardians(postgres: EmbeddedPostgres) -> list[int]:
    """The running guardians of this data directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"guardian.py" in line and os.fsencode(postgres.data_folder) + b"\0" in line:
            found.append(int(entry.name))
    return found


def assert_down(postgres: EmbeddedPostgres, pid: int) -> None:
    """The server was down when stop() returned; its processes are gone but for the kernel."""
    assert not (postgres.data_folder / "postmaster.pid").exists()
    until(lambda: ended(pid), "the postmaster is gone")
    until(lambda: not guardians(postgres), "the guardian is gone")


class Member:
    """Another process that starts the server, says so and waits for a line or its death."""

    def __init__(self, folder: Path, binaries: Binaries) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder), str(binaries.folder)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def postmaster(self) -> int:
        """The pid that it joined or started; waits until it has."""
        line = self._process.stdout.readline()
        assert line.startswith("started "), f"the member said {line!r}"
        return int(line.split()[1])

    def stop(self) -> None:
        """Let it call stop() and end."""
        self._process.communicate("stop\n", timeout=DEADLINE_SECONDS)
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(params=["wheel", "15"])
def binaries(request) -> Binaries:
    if request.param == "wheel":
        return Binaries.from_wheel()
    if not DEBIAN_15.exists():
        pytest.skip(f"no Postgres 15 in {DEBIAN_15}")
    return Binaries.at(DEBIAN_15)


@pytest.fixture
def open_folder():
    """A folder that every account may pass through (pytest's own are 0700)."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def postgres(open_folder, binaries):
    postgres = EmbeddedPostgres(open_folder / "pg", binaries=binaries)
    yield postgres
    postgres.stop()
    until(lambda: not guardians(postgres), "the guardian ends")
    assert not postgres.socket_folder.exists()


@pytest.fixture
def member(postgres, binaries):
    members = []

    def start() -> Member:
        members.append(Member(postgres.folder, binaries))
        return members[-1]

    yield start
    for each in members:
        each.kill()


def answer(postgres: EmbeddedPostgres, query: str = "SELECT 1", user: str = "postgres"):
    with psycopg.connect(postgres.url(user=user)) as connection:
        return connection.execute(query).fetchone()[0]


def test_starts_answers_and_stops(postgres, binaries):
    progress = []
    postgres._on_progress = progress.append
    postgres.start()
    pid = postgres.postmaster_pid

    assert answer(postgres, "SHOW server_version_num").startswith(str(binaries.version))
    assert progress[0] == "creating the data directory, 0 s"

    postgres.start()  # idempotent
    assert postgres.postmaster_pid == pid
    postgres.stop()
    assert_down(postgres, pid)
    postgres.stop()  # idempotent
    with pytest.raises(EmbeddedPostgresError, match="No server is running"):
        _ = postgres.postmaster_pid


def test_is_durable_private_and_has_a_fixed_locale(open_folder, binaries, monkeypatch):
    monkeypatch.setenv("HEADWATER_SECRET", "x")
    monkeypatch.setenv("PGAPPNAME", "x")
    given = {"work_mem": "7MB", "application_name": "it's \\ here"}
    with EmbeddedPostgres(open_folder / "pg", binaries=binaries, settings=given) as postgres:
        expected = {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "data_checksums": "on",
            "listen_addresses": "",
            "TimeZone": "UTC",
            "server_encoding": "UTF8",
            "max_connections": "200",
            "shared_buffers": "256MB",
            "jit": "off",
            "work_mem": "7MB",
        }
        with psycopg.connect(postgres.url()) as connection:
            shown = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in expected}
            collate = connection.execute(
                "SELECT datcollate FROM pg_database WHERE datname = 'template1'"
            ).fetchone()[0]
            methods = connection.execute(
                "SELECT DISTINCT type, auth_method FROM pg_hba_file_rules"
            ).fetchall()
        assert shown == expected
        assert collate == "C"
        assert methods == [("local", "peer")]
        assert stat.S_IMODE(postgres.data_folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(postgres.socket_folder.stat().st_mode) == 0o700
        environment = Path(f"/proc/{postgres.postmaster_pid}/environ").read_bytes()
        assert b"HEADWATER" not in environment
        assert b"PGAPPNAME" not in environment


def test_the_owner_may_be_any_role_and_a_stranger_none(postgres):
    postgres.start()
    with psycopg.connect(postgres.url()) as connection:
        connection.execute("CREATE ROLE headwater_app LOGIN")

    assert answer(postgres, "SELECT current_user", "headwater_app") == "headwater_app"
    if not ROOT:
        return
    # Even with the socket folder opened to all, a stranger is turned away by name.
    postgres.socket_folder.chmod(0o755)
    next(postgres.socket_folder.glob(".s.PGSQL.*[0-9]")).chmod(0o777)
    psql = str(postgres._cluster._binaries.folder / "psql")
    asked = subprocess.run(
        [psql, postgres.url(), "-c", "SELECT 1"], check=False,
        user=65534, group=65534, extra_groups=[], capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    postgres.socket_folder.chmod(0o700)
    assert "Peer authentication failed" in asked.stderr


@ONE_VERSION
def test_two_objects_in_one_process_share(postgres, binaries):
    postgres.start()
    other = EmbeddedPostgres(postgres.folder, binaries=binaries)
    other.start()
    pid = other.postmaster_pid

    assert pid == postgres.postmaster_pid
    postgres.stop()
    assert answer(other) == 1
    other.stop()
    assert_down(postgres, pid)


@ONE_VERSION
def test_a_second_process_joins_and_the_last_to_stop_stops(postgres, member):
    postgres.start()
    second = member()

    assert second.postmaster() == postgres.postmaster_pid
    pid = postgres.postmaster_pid
    postgres.stop()
    assert not ended(pid)
    second.stop()
    assert_down(postgres, pid)


@ONE_VERSION
def test_killing_one_member_leaves_the_server(postgres, member):
    second = member()
    pid = second.postmaster()
    postgres.start()

    second.kill()

    assert answer(postgres) == 1
    assert postgres.postmaster_pid == pid


def test_killing_the_only_member_stops_the_server(postgres, member):
    only = member()
    pid = only.postmaster()
    (guardian,) = guardians(postgres)

    only.kill()

    until(lambda: ended(pid), "the server stops")
    until(lambda: ended(guardian), "the guardian ends")
    assert not (postgres.data_folder / "postmaster.pid").exists(), "shut down cleanly"


@ONE_VERSION
def test_a_killed_guardian_is_replaced_at_the_next_start(postgres, member):
    only = member()
    pid = only.postmaster()
    (guardian,) = guardians(postgres)
    os.kill(guardian, signal.SIGKILL)
    until(lambda: ended(guardian), "the guardian dies")

    second = member()
    assert second.postmaster() == pid
    until(lambda: len(guardians(postgres)) == 1, "there is one guardian")
    only.kill()
    second.kill()
    until(lambda: ended(pid), "the server stops")


@ONE_VERSION
def test_a_join_while_the_guardian_stops_starts_afresh(postgres, member):
    for _ in range(3):
        only = member()
        only.postmaster()
        only.kill()
        postgres.start()
        assert answer(postgres) == 1
        until(lambda: len(guardians(postgres)) == 1, "there is one guardian")
        postgres.stop()


@ONE_VERSION
def test_children_are_no_members(postgres):
    postgres.start()
    pid = postgres.postmaster_pid
    context = multiprocessing.get_context("fork")
    release = context.Event()
    child = context.Process(target=release.wait)
    child.start()
    program = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        postgres.stop()
        assert_down(postgres, pid)
    finally:
        release.set()
        child.join()
        program.kill()
        program.wait()


@ONE_VERSION
def test_four_processes_start_one_server_at_once(postgres, member):
    members = [member() for _ in range(4)]

    assert len({each.postmaster() for each in members}) == 1
    until(lambda: len(guardians(postgres)) == 1, "there is one guardian")
    for each in members:
        each.stop()
    assert not (postgres.data_folder / "postmaster.pid").exists()


@pytest.mark.parametrize("fault", ["kill", "immediate"])
def test_recovers_what_was_committed(postgres, fault):
    progress = []
    postgres._on_progress = progress.append
    postgres.start()
    with psycopg.connect(postgres.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
    pid = postgres.postmaster_pid

    if fault == "kill":
        postgres.kill()
        postgres.start()
        assert "recovering, 0 s" in progress
    else:
        postgres.restart("immediate")

    assert postgres.postmaster_pid != pid
    assert answer(postgres, "SELECT value FROM kept") == 42


@ONE_VERSION
def test_recovers_although_a_backend_of_the_killed_server_is_busy(postgres):
    postgres.start()
    connection = psycopg.connect(postgres.url())
    backend = connection.info.backend_pid
    connection.pgconn.send_query(b"DO $$ BEGIN LOOP NULL; END LOOP; END $$")
    until(lambda: state(backend) == "R", "the backend is busy")

    postgres.kill()
    postgres.start()

    connection.close()
    until(lambda: ended(backend), "the backend is gone")
    assert answer(postgres) == 1


@ONE_VERSION
@pytest.mark.parametrize("named", ["innocent", "another server's process"])
def test_a_recycled_pid_is_neither_trusted_nor_killed(postgres, binaries, named):
    postgres.start()
    postgres.kill()
    innocent = subprocess.Popen(
        ["sleep", "600"] if named == "innocent" else ["postgres: checkpointer ", "600"],
        executable="/bin/sleep",
        user=postgres._placement.account.uid if ROOT else None,
        cwd="/",
    )
    pid_file = postgres.data_folder / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(innocent.pid), *lines[1:]]) + "\n")
    try:
        with pytest.raises(EmbeddedPostgresError, match="No server is running"):
            _ = postgres.postmaster_pid
        postgres.kill()
        postgres.start()
        assert postgres.postmaster_pid != innocent.pid
        assert answer(postgres) == 1
        postgres.stop()
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_data_of_another_version_is_refused_clearly(postgres, binaries):
    with postgres:
        pass
    (postgres.data_folder / "PG_VERSION").write_text("13\n")

    with pytest.raises(EmbeddedPostgresError) as refused:
        postgres.start()

    assert "written by Postgres 13" in str(refused.value)
    assert f"are Postgres {binaries.version}" in str(refused.value)
    assert "pg_dumpall" in str(refused.value)


@ONE_VERSION
def test_a_failing_start_shows_the_log_and_leaves_nothing(open_folder, binaries):
    wrong = EmbeddedPostgres(
        open_folder / "pg", binaries=binaries, settings={"shared_buffers": "many"}
    )
    with pytest.raises(EmbeddedPostgresError, match='invalid value for parameter "shared_buffers"'):
        wrong.start()
    until(lambda: not guardians(wrong), "the guardian ends")


@ONE_VERSION
def test_an_interrupted_initdb_leaves_no_broken_data(postgres, member):
    first = member()
    home = postgres.data_folder.parent
    until(lambda: list(home.glob("initdb-*/base")), "initdb is at work")
    first.kill()
    assert not postgres.data_folder.exists()

    postgres.start()

    assert answer(postgres) == 1
    assert not list(home.glob("initdb-*"))


def test_a_planted_socket_folder_is_refused(postgres, open_folder):
    elsewhere = open_folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    postgres.socket_folder.symlink_to(elsewhere)
    try:
        with pytest.raises(EmbeddedPostgresError, match="is not a directory"):
            postgres.start()
    finally:
        postgres.socket_folder.unlink()
    assert not list(elsewhere.iterdir())


def test_missing_programs_are_named(tmp_path, monkeypatch):
    with pytest.raises(EmbeddedPostgresError, match="'postgres' is missing"):
        Binaries.at(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedPostgresError, match=r"pip install 'headwater\[embedded\]'"):
        Binaries.from_wheel()


@pytest.mark.skipif(not ROOT, reason="only root's server has an account of its own")
def test_root_keeps_unreachable_data_and_programs_elsewhere(open_folder):
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    package = Path(Binaries.from_wheel().folder).parents[1]
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.parent / name, private / name)
    hidden = Binaries.at(private / package.name / "pginstall18" / "bin")
    postgres = EmbeddedPostgres(private / "pg", binaries=hidden)
    try:
        with postgres:
            home = postgres.data_folder.parent
            assert home.parent == STATE_FOLDER
            assert (private / "pg" / "location").read_text() == f"{home}\n"
            assert stat.S_IMODE(home.stat().st_mode) == 0o700
            assert home.stat().st_uid == pwd.getpwnam("headwater").pw_uid
            assert answer(postgres) == 1
            running = Path(f"/proc/{postgres.postmaster_pid}/exe").readlink()
            assert running.is_relative_to(STATE_FOLDER / "binaries")
        assert EmbeddedPostgres(private / "pg").data_folder == postgres.data_folder
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(postgres.data_folder.parent)


def usable_interpreter(uid: int) -> str | None:
    """A Python of this version that the user may run."""
    version = "import sys; print(sys.version_info[:2])"
    for program in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            asked = subprocess.run(
                [program, "-c", version], check=False, user=uid, group=uid, extra_groups=[],
                capture_output=True, text=True, cwd="/",
            )  # fmt: skip
        except OSError:
            continue
        if asked.stdout.strip() == str(tuple(sys.version_info[:2])):
            return program
    return None


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_an_ordinary_user_runs_the_server_as_itself(open_folder, binaries):
    uid = 65534
    interpreter = usable_interpreter(uid)
    if interpreter is None:
        pytest.skip("no Python interpreter that an ordinary user may run")
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, uid, uid)
    ran = subprocess.run(
        [interpreter, "-", str(home / "pg"), str(binaries.folder)],
        input=ORDINARY_MEMBER, check=False,
        user=uid, group=uid, extra_groups=[], cwd="/", capture_output=True, text=True,
        env={"HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(uid), "1"]
    assert (home / "pg" / "data").stat().st_uid == uid


ORDINARY_MEMBER = """
import os, sys
from pathlib import Path
import psycopg
from headwater.operations.embedded import Binaries, EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1]), binaries=Binaries.at(Path(sys.argv[2]))) as postgres:
    print(os.stat(f"/proc/{postgres.postmaster_pid}").st_uid)
    with psycopg.connect(postgres.url()) as connection:
        print(connection.execute("SELECT 1").fetchone()[0])
"""


def main() -> None:
    folder, programs = map(Path, sys.argv[1:])
    postgres = EmbeddedPostgres(folder, binaries=Binaries.at(programs))
    postgres.start()
    print("started", postgres.postmaster_pid, flush=True)
    sys.stdin.readline()
    postgres.stop()


if __name__ == "__main__":
    main()
