"""An airport's application: a year of New York flights, replayed into its tables and the log."""
