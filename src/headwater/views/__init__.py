"""Named derivations of the log: folds and incremental SQL views."""

from headwater.views.definition import Definition, Difference, Verification
from headwater.views.fold import Document, Fold
from headwater.views.port import Parked, StoredView
from headwater.views.sql_view import SqlView

__all__ = [
    "Definition",
    "Difference",
    "Document",
    "Fold",
    "Parked",
    "SqlView",
    "StoredView",
    "Verification",
]
