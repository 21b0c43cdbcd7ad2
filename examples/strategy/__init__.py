"""Strategy runs: analytics without dual writes."""
