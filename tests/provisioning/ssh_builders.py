"""A real sshd of OpenSSH on a free loopback port, and sockets that only look like one."""

import contextlib
import shutil
import socket
import subprocess
import threading
from pathlib import Path

from provisioning_builders import wait_until

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")


class Sshd:
    """sshd in the foreground; this process's own account may log in with the keys in `authorized`."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.chmod(0o755)
        self.authorized = folder / "authorized_keys"
        self.authorized.write_text("")
        for kind in ("ed25519", "rsa"):
            command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(folder / f"host_{kind}")]
            subprocess.run(command, check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = None
        self.start("ed25519", "rsa")

    def start(self, *kinds: str) -> None:
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", "UsePAM no", "StrictModes no", "PidFile none",
            f"AuthorizedKeysFile {self.authorized}", "PasswordAuthentication no", "PermitRootLogin yes",
            "Subsystem sftp internal-sftp", *(f"HostKey {self.folder}/host_{kind}" for kind in kinds),
        ]  # fmt: skip
        config = self.folder / "config"
        config.write_text("\n".join(lines) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)
        log.close()
        wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as line:
                return line.recv(4) == b"SSH-"
        except OSError:
            return False

    def new_host_key(self) -> None:
        """The box was installed anew."""
        self.stop()
        for path in self.folder.glob("host_ed25519*"):
            path.unlink()
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_ed25519")]
        subprocess.run(command, check=True)
        self.start("ed25519")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@contextlib.contextmanager
def listener(says: bytes):
    """A port that takes connections, says something, and then nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        lines = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    line, _ = server.accept()
                    lines.append(line)
                    line.sendall(says)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for line in lines:
                line.close()
            thread.join(5)
