"""Which agent gets the next request: one policy a file, found by importing this package's modules."""

from importlib import import_module
from pkgutil import iter_modules

from appliance.policies.balancing.seam import (
    DEFAULT_POLICY,
    Choice,
    Nothing,
    Policy,
    Target,
    UnknownPolicy,
    Wait,
    find_policy,
    policy_names,
)

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "DEFAULT_POLICY",
    "Choice",
    "Nothing",
    "Policy",
    "Target",
    "UnknownPolicy",
    "Wait",
    "find_policy",
    "policy_names",
]
