"""A whole installation under a seeded schedule of faults, and the check of every promise after it."""
