"""The HTTP entrance. Needs the extra ``http``."""

from headwater.errors import SettingError

try:
    import starlette
    import uvicorn
except ModuleNotFoundError as error:
    raise SettingError(
        "HTTP needs packages that are not installed.", hint="Run pip install 'headwater[http]'."
    ) from error

from headwater.entrances.http.asgi import asgi
from headwater.entrances.http.limits import Limits
from headwater.entrances.http.server import DEFAULT_ADDRESS, Serving, listen, run, serving
from headwater.entrances.http.tickets import ticket

_ = (starlette, uvicorn)

__all__ = ["DEFAULT_ADDRESS", "Limits", "Serving", "asgi", "listen", "run", "serving", "ticket"]
