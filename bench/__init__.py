"""Speed as ratios to limits, measured in the same run on the same server."""
