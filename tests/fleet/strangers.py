"""Keys and certificates that nobody of ours has given out, and what strangers try with them."""

import datetime as dt
import json
import shlex
import subprocess
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

#: Run on a host: asks an agent for its readiness, and prints the status line or why there was none.
KNOCK = """
import json, os, socket, ssl, sys, tempfile
asked = json.load(sys.stdin)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
if asked["shown"]:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(asked["shown"])
        file.flush()
        context.load_cert_chain(file.name)
told = []
for path in asked["paths"]:
    try:
        with socket.create_connection((asked["address"], asked["port"]), timeout=5) as plain:
            line = plain if asked["plain"] else context.wrap_socket(plain)
            line.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
            told.append(line.recv(4096).decode(errors="replace").partition("\\r\\n")[0])
            if line is not plain:
                line.close()
    except OSError as problem:
        told.append(f"refused: {problem}")
print(json.dumps(told))
"""
PATHS = ("/readyz", "/healthz", "/metrics", "/v1/models")


def knock(box, port, *, shown="", plain=False, stranger=None):
    """What each path answers on a port of a box, asked from another host or from here."""
    asked = {"address": box.address, "port": port, "shown": shown, "plain": plain, "paths": PATHS}
    given = json.dumps(asked)
    if stranger is not None:
        return json.loads(stranger.run(f"python3 -c {shlex.quote(KNOCK)}", given=given))
    done = subprocess.run(
        [sys.executable, "-c", KNOCK], input=given, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def write_key(folder):
    """(path of a new private key, its public line)."""
    key = ed25519.Ed25519PrivateKey.generate()
    path = folder / "identity"
    path.touch(0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return path, public.decode()


def self_signed(name="control"):
    """A certificate with its key, in PEM, that its own holder has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (certificate.public_bytes(serialization.Encoding.PEM) + private).decode()
