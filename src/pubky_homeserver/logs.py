"""Where the log goes, and from which level on."""

import signal
import sys
from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile

from pubky_homeserver.core.errors import CannotStart

DAEMON_LOG = "twistd.log"
"""Where twistd writes the log of a daemon that was not told otherwise: in the working directory."""


def observe(twistd: Mapping[str, Any], level: str, reactor: IReactorFromThreads) -> ILogObserver | None:
    """What writes the log from a level on, where the options of `twistd` say. Raises `CannotStart`.

    None if twistd has to see to it itself: what goes to syslog or to an observer of the operator's has every level.
    """
    is_daemon = not twistd["nodaemon"]
    file = twistd["logfile"] or (DAEMON_LOG if is_daemon else "-")
    if twistd["syslog"] or twistd["logger"] or (file == "-" and is_daemon):
        return None
    stream: Any = sys.stdout if file == "-" else _open(file, reactor)
    threshold = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(level))
    return FilteringLogObserver(textFileLogObserver(stream), [threshold])


def _open(file: str, reactor: IReactorFromThreads) -> LogFile:
    """A log file, which SIGUSR1 rotates as twistd promises."""
    try:
        log: LogFile = LogFile.fromFullPath(file)
    except OSError as error:
        raise CannotStart(f"The log {file} cannot be written: {error.strerror}") from None
    signal.signal(signal.SIGUSR1, lambda _number, _frame: reactor.callFromThread(log.rotate))
    return log
