"""Work that facts cause: queues, the functions that run, schedules."""

from headwater.jobs.job import Job
from headwater.jobs.queue import JobRate, Queue
from headwater.jobs.retrying import Retry
from headwater.jobs.schedule import Schedule, ScheduleRan
from headwater.jobs.service import Service, Work
from headwater.jobs.taken import RunningJob, this_job

__all__ = [
    "Job",
    "JobRate",
    "Queue",
    "Retry",
    "RunningJob",
    "Schedule",
    "ScheduleRan",
    "Service",
    "Work",
    "this_job",
]
