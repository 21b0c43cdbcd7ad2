"""What tests of applications and of stores use. Never imported by production code."""
