"""What others changed while a form was open: it is told before it is lost."""

from typing import Any

from django import forms


def tell_meanwhile(form: forms.Form) -> bool:
    """Whether others changed what was typed anew here; each such field says so, and the next time it counts.

    For a valid form whose fields show their hidden initial, and whose initial is how things are now.
    """
    sent: Any = form.data
    data = sent.copy()
    found = {}
    for name in form.changed_data:
        field, hidden = form.fields[name], form[name].html_initial_name
        now = form.get_initial_for_field(field, name)
        meant = {_plain(field, now), _plain(field, form.cleaned_data[name])}
        if hidden in data and len(meant) > 1 and _plain(field, data[hidden]) != _plain(field, now):
            data[hidden] = "" if now is None else str(now)
            found[name] = _say(now)
    form.data = data
    for name, words in found.items():
        form.add_error(name, f"Somebody changed it to {words} meanwhile. Save again to have yours instead.")
    return bool(found)


def _plain(field: forms.Field, value: Any) -> Any:
    """Comparable, whether it comes from a row or from a browser."""
    plain = field.to_python(value)
    return tuple(plain.split()) if isinstance(plain, str) else plain


def _say(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "; ".join(str("" if value is None else value).splitlines()) or "none"
