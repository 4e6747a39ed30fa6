"""Log records as lines of JSON on stderr."""

import datetime as dt
import json
import logging
import sys

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


def configure_logs(gateway: str) -> None:
    """Send all records of level INFO and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(gateway))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
