"""The certificate authority on disk."""

import datetime as dt
import stat
from dataclasses import replace

import pytest
from cryptography import x509
from django.conf import settings

from appliance.authority import client_files, ensure_authority
from provisioning.certificates import valid_until

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


@pytest.fixture
def environment(tmp_path):
    return replace(settings.ENVIRONMENT, home=tmp_path)


def contents(environment):
    return {path.name: path.read_bytes() for path in environment.ca_dir.iterdir() if path.suffix != ".lock"}


def test_made_once(environment):
    """The second call finds everything; keys are for their owner alone."""
    authority = ensure_authority(environment, NOW)
    first = contents(environment)
    assert ensure_authority(environment, NOW) == authority
    assert contents(environment) == first
    assert {"ca.pem", "ca.key", "gateway.pem", "gateway.key", "control.pem", "control.key"} <= set(first)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in environment.ca_dir.iterdir()}
    assert modes == {0o600}


def test_renewed_with_thirty_days_left(environment):
    """Client certificates last 90 days and are renewed after 60; the authority stays."""
    authority = ensure_authority(environment, NOW)
    files = client_files(environment, "gateway")
    before = files.certificate.read_bytes()
    ensure_authority(environment, NOW + dt.timedelta(days=59))
    assert files.certificate.read_bytes() == before
    assert ensure_authority(environment, NOW + dt.timedelta(days=60)) == authority
    assert valid_until(files.certificate.read_bytes()) > NOW + dt.timedelta(days=149)


@pytest.mark.parametrize("damage", ["missing", "other", "broken"])
def test_pair_that_does_not_fit_is_made_anew(environment, damage):
    """A crash between two writes, or a lost file, is mended."""
    ensure_authority(environment, NOW)
    files = client_files(environment, "control")
    if damage == "missing":
        files.key.unlink()
    else:
        other = client_files(environment, "gateway").key.read_bytes()
        files.key.write_bytes(other if damage == "other" else b"?")
    before = files.certificate.read_bytes()
    ensure_authority(environment, NOW)
    assert files.certificate.read_bytes() != before


def test_clients_of_a_lost_authority_are_made_anew(environment):
    """Where the authority's key was lost there is a new one, and certificates of the old open nothing."""
    before = ensure_authority(environment, NOW)
    (environment.ca_dir / "ca.key").unlink()
    authority = ensure_authority(environment, NOW)
    assert authority.certificate_pem != before.certificate_pem
    issuer = x509.load_pem_x509_certificate(authority.certificate_pem)
    for name in ("gateway", "control"):
        shown = client_files(environment, name).certificate.read_bytes()
        x509.load_pem_x509_certificate(shown).verify_directly_issued_by(issuer)
