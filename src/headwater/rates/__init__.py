"""How often callers may come: the generic cell rate algorithm (ATM Forum, Traffic Management 4.0, 1996)."""

from headwater.rates.limiter import Limiter
from headwater.rates.plan import Counters, Decision, Plan, Taken, Want
from headwater.rates.postgres import PostgresCounters

__all__ = ["Counters", "Decision", "Limiter", "Plan", "PostgresCounters", "Taken", "Want"]
