"""``python -m headwater`` is the command line."""

from headwater.entrances.cli.main import main

main()
