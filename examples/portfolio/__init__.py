"""A portfolio: cash and holdings are the sum of what happened."""
