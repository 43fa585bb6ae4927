"""Where the log goes, and from which level on."""

import sys
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile


def log_to(application: Any, file: str | None, level: str) -> None:
    """Make an application that `twistd` starts log from a level on, to a file or to stdout (None, `-`)."""
    if not isinstance(application, Componentized):
        return
    stream = sys.stdout if file in (None, "", "-") else LogFile.fromFullPath(file)
    threshold = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(level))
    application.setComponent(ILogObserver, FilteringLogObserver(textFileLogObserver(stream), [threshold]))
