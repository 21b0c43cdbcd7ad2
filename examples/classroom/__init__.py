"""Classroom: live learning progress."""
