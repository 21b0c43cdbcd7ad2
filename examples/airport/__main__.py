"""``python -m examples.airport`` runs the demo."""

import signal
import sys

# Ctrl-C ends it also where a script started it with & and left the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

try:
    from examples.airport.command import main
except KeyboardInterrupt:  # Ctrl-C before anything began
    sys.exit(130)

main()
