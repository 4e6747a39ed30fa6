"""JSON columns that are read safely: what is not as expected counts as nothing, and says that it is so."""

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from django.db import models
from django.db.models.fields.json import KeyTransform


class Damaged:
    """What was read in place of a value that is not as expected. `stored` is that value, and saved again."""

    stored: Any


class DamagedDict(dict[str, Any], Damaged):
    """A safe mapping in place of a damaged one."""


class DamagedList(list[Any], Damaged):
    """An empty list in place of a damaged one."""


class CheckedJSONField(models.JSONField):
    """JSON of which each value read is one that `accepts` says yes to, or a `Damaged` one.

    A damaged value is `instead`, or empty. One row by hand or by another version must not end what reads
    all of them.
    """

    def __init__(
        self,
        *args: Any,
        accepts: Callable[[Any], bool] = lambda _: True,
        instead: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._accepts = accepts
        self._instead = instead or {}
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        """As migrations know it: to the database it is a plain one."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """What is stored, where it is accepted."""
        try:
            found = super().from_db_value(value, expression, connection)
        except json.JSONDecodeError:
            found = value
        else:
            if value is None or isinstance(expression, KeyTransform) or self._accepts(found):
                return found
        safe: DamagedDict | DamagedList = (
            DamagedList() if self.default is list else DamagedDict(self._instead)
        )
        safe.stored = found
        return safe

    def get_prep_value(self, value: Any) -> Any:
        """A damaged value is left as it is stored."""
        return super().get_prep_value(value.stored if isinstance(value, Damaged) else value)


def damage(row: models.Model) -> str:
    """Names of its columns that are damaged, of those that were read; '' where none is."""
    read = vars(row)
    return " and ".join(name for name in _checked(type(row)) if isinstance(read.get(name), Damaged))


@cache
def _checked(model: type[models.Model]) -> tuple[str, ...]:
    fields = model._meta.concrete_fields  # noqa: SLF001 - Django's documented way to them
    return tuple(one.attname for one in fields if isinstance(one, CheckedJSONField))


def is_number(value: Any, *, least: float = 0.0) -> bool:
    """Whether it is a finite number of at least so much."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and math.isfinite(value) and value >= least


def is_labels(value: Any) -> bool:
    """Whether names have plain values."""
    return isinstance(value, dict) and not any(isinstance(one, dict | list) for one in value.values())


def is_hardware(value: Any) -> bool:
    """Whether it has no cores, RAM or CPU flags that cannot be such."""
    if not isinstance(value, dict) or not isinstance(value.get("flags") or [], list):
        return False
    return all(value.get(name) is None or is_number(value[name]) for name in ("cores_physical", "ram_bytes"))


def is_profile(value: Any) -> bool:
    """Whether an agent can be started with it."""
    if not isinstance(value, dict):
        return False
    shape = [value.get("workers"), value.get("threads", 1), value.get("batch_size")]
    shape.append(value.get("limit") or 1)
    speeds = [value.get(name) or 0.0 for name in ("capacity_rps", "tokens_per_s", "fixed_s", "per_token_s")]
    return all(type(one) is int and one >= 1 for one in shape) and all(map(is_number, speeds))


def is_texts(value: Any) -> bool:
    """Whether it is a list of texts."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def is_dicts(value: Any) -> bool:
    """Whether it is a list of mappings."""
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)
