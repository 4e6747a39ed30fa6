"""The built-in load generator: closed and open loop, one process, no Django."""

from appliance.load_test.plan import BadPlan, LoadPlan, Target, parse_url
from appliance.load_test.records import RecordFile
from appliance.load_test.run import run_load
from appliance.load_test.summary import Summary, render_summary

__all__ = [
    "BadPlan",
    "LoadPlan",
    "RecordFile",
    "Summary",
    "Target",
    "parse_url",
    "render_summary",
    "run_load",
]
