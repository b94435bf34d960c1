"""The log of a task for people: `log.txt` in its folder."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("clever")


@contextmanager
def log_into(folder: Path) -> Iterator[None]:
    """Everything that the package logs, and Python's warnings, go into the task's log until the context ends."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    warnings = logging.getLogger("py.warnings")
    logging.captureWarnings(True)
    log.setLevel(logging.INFO)
    for logger in (log, warnings):
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in (log, warnings):
            logger.removeHandler(handler)
        logging.captureWarnings(False)
        handler.close()
