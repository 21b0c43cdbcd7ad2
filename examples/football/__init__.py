"""Football: one fact, many tellings."""
