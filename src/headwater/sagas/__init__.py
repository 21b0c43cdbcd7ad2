"""Long-running decisions across streams: an async function whose steps, results and compensations are recorded."""

from headwater.sagas.saga import Saga, Undo

__all__ = ["Saga", "Undo"]
