"""Rows: what people want, what was observed, and what was decided. One file per aggregate."""

from appliance.models.agents import Agent
from appliance.models.audit import AuditEvent
from appliance.models.decisions import Decision, RecordedTick
from appliance.models.deployments import Deployment, Revision
from appliance.models.enrolments import Enrolment, RemoteStep, Transfer
from appliance.models.history import MetricPoint
from appliance.models.inference_models import InferenceModel
from appliance.models.keys import ApiKey
from appliance.models.leases import Lease
from appliance.models.nodes import Node
from appliance.models.power import PowerRules
from appliance.models.profiles import Profile
from appliance.models.routes import RouteState

__all__ = [
    "Agent",
    "ApiKey",
    "AuditEvent",
    "Decision",
    "Deployment",
    "Enrolment",
    "InferenceModel",
    "Lease",
    "MetricPoint",
    "Node",
    "PowerRules",
    "Profile",
    "RecordedTick",
    "RemoteStep",
    "Revision",
    "RouteState",
    "Transfer",
]
