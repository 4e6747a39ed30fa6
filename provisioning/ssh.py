"""Nodes over SSH. The only importer of paramiko; its errors become those of `errors.py` here."""

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Final

import paramiko

from provisioning import errors
from provisioning.hostkeys import KEY_TYPES, HostKey, check_pin, fingerprint, kinds_to_try
from provisioning.login import Address, KeyFile, KeyText, Password, SshAgent, Way
from provisioning.transport import DEFAULT_LIMITS, Kept, Limits, OnOutput, Result, Secret

CONNECT_S: Final = 10.0
AUTH_S: Final = 15.0
_KEEPALIVE_S: Final = 5
_PIECE_BYTES: Final = 32 * 1024
_MOST_WAITING_BYTES: Final = 8 * 1024 * 1024
#: What waits in the system to be sent: on a slow line a question stands behind it while a file is sent.
_SEND_BYTES: Final = 128 * 1024
_KEY_CLASSES: Final = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
_RSA_NAMES: Final = ("rsa-sha2-512", "rsa-sha2-256")

# It logs refused passwords and broken connections as errors, with tracebacks; ours say it in one line.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


def read_host_key(address: Address, *, connect_s: float = CONNECT_S) -> HostKey:
    """The key that the box shows to a stranger. Raises Unreachable, WrongPort, Hung."""
    transport = _open(address, KEY_TYPES, connect_s)
    try:
        return _shown(transport)
    finally:
        transport.close()


def connect(
    address: Address, pinned: HostKey, way: Way, *, connect_s: float = CONNECT_S, auth_s: float = AUTH_S
) -> "SshCarrier":
    """Log in to a box that shows the pinned key; nothing is told to any other.

    Raises Unreachable, WrongPort, HostKeyChanged, WrongPassword, KeyRefused, KeyUnusable, Hung and
    ConnectionLost.
    """
    with _keys(way) as keys:
        transport = _open_pinned(address, pinned, connect_s)
        try:
            transport.auth_timeout = auth_s
            with _translated(address):
                _authenticate(transport, address, way, keys)
            transport.set_keepalive(_KEEPALIVE_S)
        except BaseException:
            transport.close()
            raise
    return SshCarrier(transport, address)


class SshCarrier:
    """A logged-in connection."""

    def __init__(self, transport: paramiko.Transport, address: Address) -> None:
        self._transport = transport
        self._address = address

    def run(
        self,
        command: str,
        *,
        stdin: Iterable[bytes] = (),
        limits: Limits = DEFAULT_LIMITS,
        on_output: OnOutput | None = None,
    ) -> Result:
        """As `transport.Carrier` has it. After Hung or ConnectionLost the connection is closed."""
        try:
            with _translated(self._address):
                channel = self._begin(command, limits.idle_s)
                return _Exchange(channel, stdin, limits, on_output, self._address).finish()
        except errors.NodeError:
            self.close()
            raise

    def close(self) -> None:
        """Cut the connection."""
        self._transport.close()

    def _begin(self, command: str, limit_s: float) -> paramiko.Channel:
        """Start the command. paramiko waits for the box's consent without a limit, so one is set here."""
        watch = threading.Timer(limit_s, self._transport.close)
        watch.daemon = True
        watch.start()
        started = time.monotonic()
        try:
            channel = self._transport.open_session(timeout=limit_s)
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError):
            if time.monotonic() - started >= limit_s:
                raise errors.Hung(f"{self._address} started no command within {limit_s:g} s") from None
            raise
        finally:
            watch.cancel()
        return channel


class _Exchange:
    """One command: a thread feeds it, the caller's reads it and watches the time."""

    def __init__(
        self,
        channel: paramiko.Channel,
        stdin: Iterable[bytes],
        limits: Limits,
        on_output: OnOutput | None,
        address: Address,
    ) -> None:
        self._channel = channel
        self._stdin = stdin
        self._limits = limits
        self._stdout, self._stderr = Kept(), Kept(64 * 1024)
        self._take = on_output or self._stdout.add
        self._address = address
        self._moved = time.monotonic()
        self._failure: Exception | None = None

    def finish(self) -> Result:
        """Run it to its end. Raises Hung, ConnectionLost, and what drawing `stdin` raised."""
        feeder = threading.Thread(target=self._feed, name="ssh-stdin", daemon=True)
        feeder.start()
        try:
            self._read()
        except BaseException:
            # Not the channel: to close that, something has to be sent, which on a dead line waits for ever.
            self._channel.get_transport().close()
            raise
        self._channel.close()  # also frees the feeder
        if self._failure is not None:
            raise self._failure
        code = self._channel.recv_exit_status()
        if code < 0:  # no exit status came before the end
            raise errors.ConnectionLost(f"the connection to {self._address} ended in the middle of a command")
        return Result(code, self._stdout.value(), self._stderr.value())

    def _read(self) -> None:
        channel = self._channel
        until = time.monotonic() + self._limits.total_s
        handle = channel.fileno()
        while True:
            moved = False
            if channel.recv_ready():
                self._take(channel.recv(_PIECE_BYTES))
                moved = True
            if channel.recv_stderr_ready():
                self._stderr.add(channel.recv_stderr(_PIECE_BYTES))
                moved = True
            if moved:
                self._moved = time.monotonic()
                self._check_time(until)  # also of one that never stops talking
                self._check_waiting()
                continue
            if self._is_over():
                if not (channel.recv_ready() or channel.recv_stderr_ready()):
                    return
                continue
            self._check_time(until)
            select.select([handle], [], [], 0.05 if channel.eof_received else 0.25)
            if channel.eof_received:
                time.sleep(0.002)  # its handle stays readable while the exit status is on its way

    def _is_over(self) -> bool:
        """The exit status may come before the last output does, so the end of that counts, too."""
        channel = self._channel
        ended = channel.eof_received and channel.exit_status_ready()
        return ended or channel.closed or self._failure is not None

    def _check_waiting(self) -> None:
        """Of a box that keeps to the protocol, no more than the window (2 MiB) waits to be read."""
        waiting = len(self._channel.in_buffer) + len(self._channel.in_stderr_buffer)
        if waiting > _MOST_WAITING_BYTES:
            raise errors.ConnectionLost(f"{self._address} sends more than it may: it is cut off")

    def _check_time(self, until: float) -> None:
        now = time.monotonic()
        if now - self._moved > self._limits.idle_s:
            raise errors.Hung(f"{self._address} made no progress for {self._limits.idle_s:g} s")
        if now > until:
            raise errors.Hung(f"{self._address} did not finish within {self._limits.total_s:g} s")

    def _feed(self) -> None:
        try:
            self._channel.settimeout(None)  # the reader watches the time
            for piece in self._stdin:
                view = memoryview(piece)
                while view:
                    view = view[self._channel.send(bytes(view[:_PIECE_BYTES])) :]
                    self._moved = time.monotonic()
            self._channel.shutdown_write()
        except (OSError, paramiko.SSHException):
            pass  # the command ended without reading it all, or the connection broke: the reader says which
        except Exception as failure:  # noqa: BLE001 - raised again by the reader
            self._failure = failure


def _open_pinned(address: Address, pinned: HostKey, connect_s: float) -> paramiko.Transport:
    """A connection that showed the pinned key, asking for each type where the pin names none."""
    first: errors.HostKeyChanged | None = None
    for kinds in kinds_to_try(pinned):
        try:
            transport = _open(address, kinds, connect_s)
        except _NoSuchKey:
            continue
        try:
            check_pin(pinned, _shown(transport), str(address))
        except errors.HostKeyChanged as changed:
            transport.close()
            first = first or changed
            continue
        return transport
    raise first or errors.HostKeyChanged(f"HOST KEY CHANGED: {address} shows no key of type {pinned.kind}")


class _NoSuchKey(errors.NodeError):
    """The box has no host key of the types that were asked for."""


def _open(address: Address, kinds: tuple[str, ...], connect_s: float) -> paramiko.Transport:
    """An encrypted connection, nobody logged in. Raises Unreachable, WrongPort, Hung."""
    stream = _dial(address, connect_s)
    transport = None
    try:
        transport = paramiko.Transport(stream)
        transport.banner_timeout = transport.handshake_timeout = connect_s + 5  # start_client ends first
        transport.daemon = True
        names = [name for kind in kinds for name in (_RSA_NAMES if kind == "ssh-rsa" else (kind,))]
        transport.get_security_options().key_types = names
        with _translated(address):
            transport.start_client(timeout=connect_s)
            _check_started(transport)
    except BaseException:
        (transport or stream).close()
        raise
    return transport


def _check_started(transport: paramiko.Transport) -> None:
    """At its time-out `start_client` returns as if all were well."""
    if not transport.initial_kex_done:
        raise transport.get_exception() or TimeoutError


def _dial(address: Address, connect_s: float) -> socket.socket:
    try:
        stream = socket.create_connection((address.host, address.port), connect_s)
    except socket.gaierror:
        raise errors.Unreachable(f"{address.host!r} is no known host name or address") from None
    except ConnectionRefusedError:
        raise errors.WrongPort(f"{address} refuses connections: no sshd listens there") from None
    except TimeoutError:
        raise errors.Unreachable(f"{address} did not answer within {connect_s:g} s") from None
    except OSError as error:
        raise errors.Unreachable(f"{address} cannot be reached: {error.strerror or error}") from None
    try:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        _check_greeting(stream.recv(4, socket.MSG_PEEK), address)
    except OSError as error:
        stream.close()
        raise _broken(error, address) from None
    except errors.NodeError:
        stream.close()
        raise
    return stream


def _check_greeting(first: bytes, address: Address) -> None:
    """An SSH server speaks first, and says so."""
    if not first:
        raise errors.ConnectionLost(f"{address} takes connections, and ends them at once")
    if not b"SSH-".startswith(first):
        raise errors.WrongPort(f"{address} answers, but not as an SSH server")


def _shown(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(fingerprint(key.asbytes()), key.get_name())


@contextlib.contextmanager
def _keys(way: Way) -> Iterator[list[paramiko.PKey]]:
    """The keys to offer; an agent's can be used inside only. Raises KeyUnusable."""
    match way:
        case Password():
            yield []
        case KeyText(private):
            yield [_parse_key(private.reveal(), None, "the appliance's key")]
        case KeyFile(path, passphrase):
            try:
                text = path.read_text()
            except (OSError, ValueError) as error:
                raise errors.KeyUnusable(f"key file {str(path)!r} cannot be read: {error}") from None
            yield [_parse_key(text, passphrase, f"key file {str(path)!r}")]
        case SshAgent():
            agent = paramiko.Agent()
            try:
                keys = list[paramiko.PKey](agent.get_keys())
                if not keys:
                    raise errors.KeyUnusable("ssh-agent holds no key", remedy="add one with ssh-add")
                yield keys
            finally:
                agent.close()


def _parse_key(text: str, passphrase: Secret | None, name: str) -> paramiko.PKey:
    secret = None if passphrase is None else passphrase.reveal()
    for kind in _KEY_CLASSES:
        try:
            return kind.from_private_key(StringIO(text), password=secret)
        except paramiko.PasswordRequiredException:
            raise errors.KeyUnusable(f"{name} is protected by a passphrase") from None
        except (paramiko.SSHException, ValueError, IndexError, TypeError):
            continue
    raise errors.KeyUnusable(f"{name} holds no private key that can be used (Ed25519, ECDSA or RSA)")


def _authenticate(
    transport: paramiko.Transport, address: Address, way: Way, keys: list[paramiko.PKey]
) -> None:
    who = f"{address.user!r} at {address}"
    if isinstance(way, Password):
        try:
            transport.auth_password(address.user, way.password.reveal())
        except paramiko.BadAuthenticationType as refused:
            allowed = ", ".join(refused.allowed_types)[:100]
            raise errors.WrongPassword(f"{who} takes no password, only {allowed}") from None
        except paramiko.AuthenticationException as refused:
            failure = _broken_login(refused, who) or errors.WrongPassword(
                f"{who} does not take this password"
            )
            raise failure from None
        return
    for key in keys:
        with contextlib.suppress(paramiko.BadAuthenticationType):
            try:
                if not transport.auth_publickey(address.user, key):
                    return
            except paramiko.AuthenticationException as refused:
                broken = _broken_login(refused, who)
                if broken is not None:
                    raise broken from None
    raise errors.KeyRefused(f"{who} does not take the key")


def _broken_login(refused: paramiko.AuthenticationException, who: str) -> errors.NodeError | None:
    """What else may stand behind a refused log-in: paramiko says time-outs and broken lines that way, too."""
    text = str(refused).lower()
    if "timeout" in text:
        return errors.Hung(f"{who} did not answer the log-in in time")
    if "transport" in text or "lost" in text:
        return errors.ConnectionLost(f"the connection broke during the log-in of {who}")
    return None


@contextlib.contextmanager
def _translated(address: Address) -> Iterator[None]:
    try:
        yield
    except paramiko.ssh_exception.IncompatiblePeer as error:
        if "host key" in str(error).lower():
            raise _NoSuchKey(f"{address} has no such host key") from None
        raise errors.WrongPort(f"{address} speaks no SSH that is safe to use: {error}") from None
    except paramiko.ChannelException as error:
        raise errors.ConnectionLost(f"{address} opens no session: {error.text}") from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _broken(error, address) from None


def _broken(error: Exception, address: Address) -> errors.NodeError:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    low = text.lower()
    if "banner" in low:
        return errors.WrongPort(f"{address} answers, but not as an SSH server")
    if isinstance(error, TimeoutError) or "timeout" in low or "timed out" in low:
        return errors.Hung(f"{address} did not answer in time")
    return errors.ConnectionLost(f"the connection to {address} broke: {text}")
