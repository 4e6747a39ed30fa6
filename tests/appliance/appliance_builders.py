"""Small rows for tests."""

from appliance.models import Agent, Deployment, InferenceModel, Node


def make_model(name="minilm", digest="a" * 64, state=InferenceModel.State.READY):
    return InferenceModel.objects.create(
        name=name,
        source="pypi:some-model",
        digest=digest,
        state=state,
        manifest={"size_bytes": 24_000_000, "digest": digest},
    )


def make_node(name="local"):
    return Node.objects.create(
        name=name, address="127.0.0.1", hardware={"cores_physical": 2, "ram_bytes": 8 * 2**30}
    )


def make_agent(deployment: Deployment, node: Node, name="minilm-000001", **fields):
    return Agent.objects.create(
        id=name,
        deployment=deployment,
        revision=deployment.revision,
        node=node,
        host="127.0.0.1",
        port=20001,
        profile={"workers": 2, "threads": 1, "batch_size": 8},
        certificates=["c" * 64],
        **fields,
    )
