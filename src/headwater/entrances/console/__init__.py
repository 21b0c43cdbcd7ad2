"""The page that ``headwater up`` serves: files of this package, and no data.

What it shows it asks the API for, with the token of whoever looks.
"""

from headwater.entrances.console.files import HEADERS, page_routes

__all__ = ["HEADERS", "page_routes"]
