"""Signals that wait: an exception in the midst of a thread pool's own work would leave its locks closed for ever."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C, a termination or a terminal that hangs up takes effect at the end of the block.

    Their handlers raise an exception wherever the main thread happens to be; other threads run none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    known = [each for each in ENDS if signal.getsignal(each) is not None]  # None: not Python's, so it raises nothing
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in known}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
