"""What people are told: typed notices, each told once by the channels that the person wants."""

from headwater.jobs.notices.notice import (
    Consent,
    Notice,
    NoticeFailed,
    NoticePreferred,
    NoticeSent,
    NoticeWithheld,
    Reach,
)
from headwater.jobs.notices.templates import Templates
from headwater.jobs.outgoing.channels import Channel, Mail, Message, Slack, Webhook

__all__ = [
    "Channel",
    "Consent",
    "Mail",
    "Message",
    "Notice",
    "NoticeFailed",
    "NoticePreferred",
    "NoticeSent",
    "NoticeWithheld",
    "Reach",
    "Slack",
    "Templates",
    "Webhook",
]
