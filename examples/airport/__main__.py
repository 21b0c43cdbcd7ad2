"""``python -m examples.airport`` runs the demo."""

import sys

try:
    from examples.airport.command import main
except KeyboardInterrupt:  # Ctrl-C before anything began
    sys.exit(130)

main()
