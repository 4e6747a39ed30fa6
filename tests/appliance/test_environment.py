"""The operator's settings: what is accepted, and what the refusal says."""

import pytest

from appliance.environment import BadEnvironment, read_environment


def test_defaults():
    """With nothing set: loopback, the usual ports, ./var."""
    environment = read_environment({})
    assert (environment.bind, environment.control_port, environment.gateway_port) == ("127.0.0.1", 8000, 8080)
    assert environment.home.name == "var"
    assert environment.home.is_absolute()
    assert environment.scheme == "http"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        pytest.param({"APPLIANCE_PORT": "0"}, "APPLIANCE_PORT='0' is no port", id="zero"),
        pytest.param({"GATEWAY_PORT": "65536"}, "a number from 1 to 65535", id="too-large"),
        pytest.param({"GATEWAY_PORT": "8000"}, "are both 8000", id="same"),
        pytest.param(
            {"APPLIANCE_BIND": "everywhere"}, "APPLIANCE_BIND='everywhere' is no IP address", id="bind"
        ),
        pytest.param({"APPLIANCE_BIND": "192.0.2.1"}, "APPLIANCE_PLAIN_HTTP=1", id="open-without-tls"),
        pytest.param({"TLS_KEY": "/nowhere"}, "TLS_KEY='/nowhere' is no file", id="no-file"),
        pytest.param({"DATABASE_URL": "postgres://x"}, "unset DATABASE_URL", id="database"),
    ],
)
def test_refusals_name_variable_value_and_what_is_accepted(variables, said):
    """One line that tells what to change."""
    with pytest.raises(BadEnvironment) as refused:
        read_environment(variables)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_certificate_and_key_go_together(tmp_path):
    """One without the other is refused; both open the way beyond loopback."""
    pem = tmp_path / "one.pem"
    pem.write_text("x")
    with pytest.raises(BadEnvironment, match="go together"):
        read_environment({"TLS_CERT": str(pem)})
    environment = read_environment({"TLS_CERT": str(pem), "TLS_KEY": str(pem), "APPLIANCE_BIND": "0.0.0.0"})
    assert (environment.scheme, environment.reachable_host) == ("https", "127.0.0.1")


def test_home_is_made_for_its_owner_alone(tmp_path):
    """The state directory and its parts are closed to others."""
    environment = read_environment({"APPLIANCE_HOME": str(tmp_path / "deep" / "home")})
    environment.create_directories()
    for path in (environment.home, environment.ca_dir, environment.run_dir):
        assert path.stat().st_mode & 0o777 == 0o700


def test_home_that_is_a_file_is_refused(tmp_path):
    """A file where the state directory should be is named."""
    path = tmp_path / "home"
    path.write_text("x")
    with pytest.raises(BadEnvironment, match="is not a directory"):
        read_environment({"APPLIANCE_HOME": str(path)})
