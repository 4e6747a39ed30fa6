"""Log records as lines of JSON on stderr."""

import datetime as dt
import json
import logging
import sys

RECORDS_PER_SECOND = 50
_MAX_TEXT = 4000


class JsonLines(logging.Formatter):
    """One record, one line. Long texts are cut."""

    def __init__(self, gateway: str) -> None:
        super().__init__()
        self._gateway = gateway

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "at": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "gateway": self._gateway,
            "logger": record.name,
            "event": record.getMessage()[:_MAX_TEXT],
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-_MAX_TEXT:]
        return json.dumps(line)


class Throttle(logging.Filter):
    """Lets `per_second` records pass in each second, and tells in the next how many it kept back."""

    def __init__(self, per_second: int) -> None:
        super().__init__()
        self._per_second = per_second
        self._second = 0
        self._passed = self._kept_back = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        second = int(record.created)
        if second != self._second:
            if self._kept_back:
                record.msg = f"{record.getMessage()} (and {self._kept_back} more records before, not written)"
                record.args = ()
            self._second, self._passed, self._kept_back = second, 0, 0
        self._passed += 1
        if self._passed <= self._per_second:
            return True
        self._kept_back += 1
        return False


def configure_logs(gateway: str) -> None:
    """Send all records of level INFO and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(gateway))
    handler.addFilter(Throttle(RECORDS_PER_SECOND))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
