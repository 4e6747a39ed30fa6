"""A real agent that changes its shape under load of a gateway: nobody sees anything but a short wait."""

import ssl

import pytest
from agent_builders import reshape
from gateway_harness import until
from test_gateway_real_faults import Load, machines, serve

from agents.protocol import ALPN_HTTP

pytestmark = pytest.mark.slow
__all__ = ["machines"]  # the fixture


async def test_no_request_fails_of_twenty_changes(gateway, machines, home):
    """The only agent there is changes back and forth: requests are held meanwhile, and all are answered."""
    machine, ca_dir = machines[0], home / "ca"
    context = ssl.create_default_context(cafile=ca_dir / "ca.pem")
    context.load_cert_chain(ca_dir / "gateway.pem", ca_dir / "gateway.key")
    context.set_alpn_protocols([ALPN_HTTP])
    (slots,) = await serve(gateway, [machine])
    port = await machine.process.port()
    load = Load(gateway, 8)
    for number in range(20):
        shape = [(1, 2, 2), (2, 2, 2), (2, 2, 8), (1, 1, 1)][number % 4]
        answered = slots.answered
        assert (await reshape(port, context, *shape))[0] == 200
        await until(lambda answered=answered: slots.answered > answered + 5, 20)
    await load.end()
    assert load.statuses == {200}
    assert load.slowest_s < 4.0
    await gateway.assert_conserved()
