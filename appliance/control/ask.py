"""Asking a leaving agent directly whether it still holds work, over mutual TLS.

Needed where no gateway has a connection to it any more. Asked in threads of their own; the answer is
there for a later tick, so that an agent that hangs delays nobody.
"""

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from agents.protocol import ALPN_HTTP, PATH_LOAD, LoadReport, ProtocolError
from appliance.authority import ClientFiles

ASK_S = 1.0
#: Who does not answer by then is not there, however long the answer itself may take.
CONNECT_S = 10.0
FRESH_S = 3.0
_MAX_ANSWER_BYTES = 64 * 1024

#: Agent id, host and port.
Address = tuple[str, str, int]


def fetch_load(host: str, port: int, files: ClientFiles, timeout_s: float = ASK_S) -> LoadReport:
    """The agent's load report. Raises OSError without an answer, ProtocolError with one that is nonsense."""
    status, body = request_agent("GET", PATH_LOAD, host, port, files, timeout_s=timeout_s)
    if status != http.client.OK:
        raise ProtocolError(f"answered {status}")
    return LoadReport.from_json(body)


def request_agent(
    method: str,
    path: str,
    host: str,
    port: int,
    files: ClientFiles,
    *,
    timeout_s: float,
    body: bytes | None = None,
) -> tuple[int, bytes]:
    """One request: status and answer. Raises OSError without one, ProtocolError."""
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols([ALPN_HTTP])
    connection = http.client.HTTPSConnection(host, port, timeout=min(timeout_s, CONNECT_S), context=context)
    try:
        connection.connect()
        connection.sock.settimeout(timeout_s)
        connection.request(method, path, body)
        answer = connection.getresponse()
        said = answer.read(_MAX_ANSWER_BYTES)
    except http.client.HTTPException as error:
        raise ProtocolError(f"answer not understood: {error}") from error
    finally:
        connection.close()
    return answer.status, said


class Asker:
    """Asks many agents at once and remembers the newest answers for `FRESH_S` seconds."""

    def __init__(self, fetch: Callable[[str, int], LoadReport]) -> None:
        self._fetch = fetch
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="ask")
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._answers: dict[str, tuple[float, int]] = {}

    def ask(self, agents: Iterable[Address]) -> None:
        """Ask those that are not being asked already; returns at once."""
        for agent, host, port in agents:
            with self._lock:
                if agent in self._asked:
                    continue
                self._asked.add(agent)
            self._pool.submit(self._one, agent, host, port)

    def answers(self, now: float) -> dict[str, int]:
        """Requests that each agent said it holds, executing and waiting, as of lately."""
        with self._lock:
            self._answers = {
                agent: (at, busy) for agent, (at, busy) in self._answers.items() if now - at < FRESH_S
            }
            return {agent: busy for agent, (_, busy) in self._answers.items()}

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, agent: str, host: str, port: int) -> None:
        try:
            report = self._fetch(host, port)
        except (OSError, ProtocolError):
            return  # cannot tell: the next tick asks again
        else:
            with self._lock:
                self._answers[agent] = (time.time(), report.executing + report.waiting)
        finally:
            with self._lock:
                self._asked.discard(agent)
