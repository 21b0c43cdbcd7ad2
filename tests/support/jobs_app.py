"""The app of ``jobs_shop`` for the command line, over the database of the environment."""

from __future__ import annotations

import os

import jobs_shop


class _Database:
    url = os.environ.get("HEADWATER_DATABASE_URL", "")


app = jobs_shop.make(_Database)
