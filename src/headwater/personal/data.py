"""Personal data of one installation: what an app needs of this room, by its settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from headwater.errors import SettingError
from headwater.events import Event, EventType, EventTypes
from headwater.events.personal import personal_marks
from headwater.log import Database, Fact, Written
from headwater.log.enqueuing import Enqueue
from headwater.log.writing import Group, event_of
from headwater.personal.forgetting import Forgetting, destroy_again
from headwater.personal.keys import SubjectKeys
from headwater.personal.ledger import Gone, Ledger
from headwater.personal.master import KeyService, MasterKeys
from headwater.personal.places import Place
from headwater.personal.sealing import Sealing
from headwater.personal.signing import Signer

S = TypeVar("S", bound=msgspec.Struct)


class Secrets(Protocol):
    """The settings of this room."""

    @property
    def master_key(self) -> str:
        """Master keys, as text."""
        ...

    @property
    def master_key_file(self) -> str:
        """A file with them."""
        ...

    @property
    def signing_key(self) -> str:
        """The key that signs."""
        ...

    @property
    def forgotten_ledger(self) -> str:
        """The ledger's file."""
        ...


def master_keys_of(secrets: Secrets) -> MasterKeys:
    """The master keys of the settings. Raises SettingError."""
    text = secrets.master_key
    if not text and secrets.master_key_file:
        try:
            text = Path(secrets.master_key_file).read_text()
        except OSError as error:
            raise SettingError(
                f"HEADWATER_MASTER_KEY_FILE cannot be read: {error.strerror}.",
                hint="Name a file that this process may read.",
            ) from error
    if not text:
        raise SettingError(
            "There is no master key, so nothing of a person can be sealed or opened.",
            hint="Set HEADWATER_MASTER_KEY to what `headwater keys new NAME` prints, or HEADWATER_MASTER_KEY_FILE.",
        )
    return MasterKeys.of(text)


class PersonalData:
    """Seals and opens; forgets. The keys are read when first needed.

    ``database`` is a pool of its own: sealing asks for keys inside transactions that hold a connection of the
    application's pool, and must not wait for another of those.
    """

    def __init__(
        self, secrets: Secrets, database: Database, service: KeyService | None = None
    ) -> None:
        self._secrets = secrets
        self._database = database
        self._service = service
        self._sealing: Sealing | None = None

    @property
    def sealing(self) -> Sealing:
        """Seals and opens. Raises SettingError where there is no master key."""
        if self._sealing is None:
            service = self._service or master_keys_of(self._secrets)
            ledger = self._secrets.forgotten_ledger
            gone = Gone(Path(ledger) if ledger else None)
            self._sealing = Sealing(SubjectKeys(self._database, service, gone))
        return self._sealing

    async def seal(self, tenant: str, events: Sequence[Event | Fact]) -> Sequence[Event | Fact]:
        """The events, sealed where they have personal fields."""
        if any(_is_personal(item) for item in events):
            return await self.sealing.seal(tenant, events)
        return events

    async def seal_group(self, group: Group, types: EventTypes) -> None:
        """Seals the personal fields of events that came as JSON, of types that are known here, in place.

        What has another shape stays as it is: the database refuses it. So does everything where there is no master
        key. Raises SubjectForgotten and KeyUnavailable.
        """
        known = {declared.name: declared for declared in types}
        personal = {name: found for name in set(group.types) if (found := known.get(name)) and found.personal}  # fmt: skip
        if personal and self._can_seal:
            await self.sealing.seal_group(group, personal)

    @property
    def _can_seal(self) -> bool:
        secrets = self._secrets
        return bool(self._service or secrets.master_key or secrets.master_key_file)

    async def seal_jobs(self, tenant: str, jobs: Sequence[Enqueue]) -> Sequence[Enqueue]:
        """The jobs, their personal arguments sealed."""
        if any(job.personal for job in jobs):
            return [await self.sealing.seal_job(tenant, job) for job in jobs]
        return jobs

    async def seal_fields(self, tenant: str, value: S) -> S:
        """A struct, such as a command, with the fields sealed that it marks as personal."""
        marks = personal_marks(type(value))
        return await self.sealing.seal_fields(tenant, value, marks) if marks else value

    async def opened(self, tenant: str, texts: Collection[str]) -> dict[str, str]:
        """Sealed texts and what they open to; see Sealing. Raises SettingError where there is no master key."""
        return await self.sealing.opened(tenant, texts)

    def forgetting(
        self,
        operator: Database,
        append: Callable[..., Awaitable[Written]],
        reads: Callable[[str, str], Awaitable[list[Event]]],
        places: Sequence[Place] = (),
    ) -> Forgetting:
        """Forgets persons. Raises SettingError where a key or the ledger is not set."""
        ledger, log_id = self._ledger(), operator.identity.log_id
        return Forgetting(
            operator, log_id, self.sealing, ledger.signer, ledger, append, reads, places
        )

    async def hold_to_ledger(self, operator: Database, places: Sequence[Place] = ()) -> int:
        """Forgets again whom a restored database has forgotten to forget; how many keys were destroyed.

        Raises SettingError where the settings name a ledger and no key that signs it, and LedgerBroken.
        """
        if not self._secrets.forgotten_ledger:
            return 0
        return await destroy_again(operator, operator.identity.log_id, self._ledger(), places)

    def _ledger(self) -> Ledger:
        if not self._secrets.signing_key or not self._secrets.forgotten_ledger:
            raise SettingError(
                "Forgetting needs a key to sign with, and a ledger outside the database.",
                hint="Set HEADWATER_SIGNING_KEY to what `headwater keys signing` prints, and HEADWATER_FORGOTTEN_LEDGER to a file.",
            )
        path = Path(self._secrets.forgotten_ledger)
        return Ledger(path, Signer.of(self._secrets.signing_key))


def _is_personal(item: Event | Fact) -> bool:
    return bool(EventType.of(type(event_of(item))).personal)
