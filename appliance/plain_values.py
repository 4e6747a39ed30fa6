"""Frozen dataclasses as JSON types, whole or as what changed, and back. Pure.

By the dataclasses' own fields alone: one that is new, or gone, needs no change here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Value = TypeVar("Value")


def to_plain(value: Any) -> Any:
    """A value as JSON types: dataclasses and mappings as objects, other collections as lists."""
    if is_dataclass(value):
        return {name: to_plain(getattr(value, name)) for name in _names(_type(value))}
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(one) for one in value]
    return value


def from_plain(kind: type[Value], plain: Any) -> Value:
    """The opposite of `to_plain`: unknown fields are left out, missing ones have their default.

    Raises TypeError, ValueError or AttributeError where it cannot be a `kind`.
    """
    wanted: Any = kind
    made: Value = _reader(wanted)(plain)
    return made


def changes_between(old: Any, new: Any) -> dict[str, Any]:
    """The fields of `new` that are another in `old`, a dataclass of the same type, as JSON types.

    In dataclasses within, and in tuples of as many dataclasses, again only what is another (by index).
    """
    found: dict[str, Any] = {}
    for name in _names(_type(new)):
        before, after = getattr(old, name), getattr(new, name)
        if before is after or (type(before) is type(after) and before == after):
            continue
        if is_dataclass(after) and type(before) is type(after):
            found[name] = changes_between(before, after)
        elif _same_shape(before, after):
            pairs = enumerate(zip(before, after, strict=True))
            found[name] = {str(index): changes_between(was, now) for index, (was, now) in pairs if was != now}
        else:
            found[name] = to_plain(after)
    return found


def apply_changes(old: Value, changes: Mapping[str, Any]) -> Value:
    """What `changes_between(old, new)` was made from. Raises as `from_plain` does."""
    hints = _hints(_type(old))
    given: dict[str, Any] = {}
    for name, plain in changes.items():
        if name not in hints:
            continue
        before = getattr(old, name)
        if isinstance(plain, Mapping) and is_dataclass(before):
            given[name] = apply_changes(before, plain)
        elif isinstance(plain, Mapping) and isinstance(before, tuple):
            given[name] = tuple(
                apply_changes(one, plain[str(index)]) if str(index) in plain else one
                for index, one in enumerate(before)
            )
        else:
            given[name] = from_plain(hints[name], plain)
    return replace(old, **given)  # type: ignore[type-var]  # it has hints of fields, so it is one


def _type(value: Any) -> Any:
    return type(value)


def _same_shape(before: Any, after: Any) -> bool:
    return (
        isinstance(before, tuple)
        and isinstance(after, tuple)
        and len(before) == len(after)
        and all(is_dataclass(now) and type(was) is type(now) for was, now in zip(before, after, strict=True))
    )


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {name: hints[name] for name in _names(kind)}


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return lambda plain: _read_fields(kind, plain)
    if origin in (Union, UnionType):
        some = [_reader(one) for one in inner if one is not type(None)]
        return lambda plain: None if plain is None else some[0](plain)
    if origin is tuple and inner[-1:] == (...,):
        return lambda plain: tuple(map(_reader(inner[0]), _listed(plain)))
    if origin is tuple:
        return lambda plain: tuple(_reader(one)(part) for one, part in zip(inner, plain, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return lambda plain: {_key(inner[0], key): _reader(inner[1])(one) for key, one in plain.items()}
    return lambda plain: plain


def _read_fields(kind: Any, plain: Any) -> Any:
    return kind(**{name: _reader(hint)(plain[name]) for name, hint in _hints(kind).items() if name in plain})


def _listed(plain: Any) -> Iterable[Any]:
    if not isinstance(plain, list | tuple):
        raise TypeError(f"{type(plain).__name__} is not a list")
    return plain


def _key(kind: Any, text: str) -> Any:
    return kind(text) if kind in (int, float) else text
