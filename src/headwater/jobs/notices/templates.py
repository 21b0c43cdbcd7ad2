"""Templates of messages in files, by language, with Jinja."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.errors import ExtraMissing, JobDefinitionError
from headwater.jobs.notices.notice import Reach
from headwater.jobs.outgoing.channels import Message

if TYPE_CHECKING:
    from jinja2 import Environment


class Templates:
    """A folder with ``NAME.txt``, its first line the subject, and perhaps ``NAME.html``; in a language, ``NAME.de.txt``.

    ``de-AT`` is looked for first, then ``de``, then none. They see the arguments, and the person's ``name``, ``locale``
    and data. What a template names and nobody gives is an error; in HTML every value is escaped.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise JobDefinitionError(
                f"There is no folder {str(folder)!r} with templates.", hint="Name one that exists."
            )
        self._environment = _environment(self.folder)

    def __call__(self, name: str, to: Reach, /, **values: Any) -> Message:
        """The message to a person. Raises jinja2.TemplateError."""
        known = {"name": to.name, "locale": to.locale, **to.data, **values}
        text = self._rendered(name, "txt", to.locale, known)
        if text is None:
            raise JobDefinitionError(
                f"There is no template {name}.txt.", hint=f"Add it to {str(self.folder)!r}."
            )
        subject, _, body = text.partition("\n")
        html = self._rendered(name, "html", to.locale, known)
        return Message(subject.strip(), body.lstrip("\n"), html)

    def _rendered(self, name: str, kind: str, locale: str, known: dict[str, Any]) -> str | None:
        for suffix in _suffixes(locale):
            path = f"{name}{suffix}.{kind}"
            if (self.folder / path).is_file():
                return self._environment.get_template(path).render(known)
        return None


def _suffixes(locale: str) -> Iterator[str]:
    parts = [part for part in locale.replace("_", "-").split("-") if part.isalnum()]
    for end in range(len(parts), 0, -1):
        yield "." + "-".join(parts[:end])
    yield ""


def _environment(folder: Path) -> Environment:
    try:
        from jinja2 import FileSystemLoader, StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise ExtraMissing(
            "Templates in files need the package Jinja2.",
            hint="pip install 'headwater[notices]'.",
        ) from error
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".html"),
    )
