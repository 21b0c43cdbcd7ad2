"""Personal data: sealed before it enters the log, opened for readers, forgotten by destroying a key."""

from headwater.personal.data import PersonalData
from headwater.personal.forgetting import Certificate, Forgetting, SubjectWasForgotten, is_genuine
from headwater.personal.master import KeyService, MasterKeys
from headwater.personal.retention import Retained, Retention, RetentionApplied
from headwater.personal.sealing import FORGOTTEN, Sealing

__all__ = [
    "FORGOTTEN",
    "Certificate",
    "Forgetting",
    "KeyService",
    "MasterKeys",
    "PersonalData",
    "Retained",
    "Retention",
    "RetentionApplied",
    "Sealing",
    "SubjectWasForgotten",
    "is_genuine",
]
