"""The log of decisions: filters, each decision in words, and the same for spreadsheets."""

import datetime as dt
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from appliance import decision_log
from appliance.api.decisions import csv_response
from appliance.errors import VerbError
from appliance.models import Decision, Deployment
from dashboard.access import needs
from dashboard.node_presenters import bounded, instant_text
from dashboard.scaling_presenters import change_text
from dashboard.views.pages import render_page

ROWS = 50
_SPANS = (("1h", "last hour"), ("6h", "last 6 hours"), ("1d", "last day"), ("7d", "last 7 days"), ("", "all"))
_NAMES_SHOWN = 500


class DecisionFilterForm(forms.Form):
    """Which decisions; what is not accepted is left out."""

    deployment = forms.CharField(required=False, max_length=63)
    kind = forms.CharField(required=False, max_length=32)
    since = forms.CharField(required=False, max_length=40)
    changed = forms.BooleanField(required=False)
    cursor = forms.CharField(required=False, max_length=40)

    def chosen(self, now: dt.datetime) -> decision_log.Chosen:
        """What was asked for. Raises VerbError where a time is none."""
        given = self.cleaned_data
        kind, since = given.get("kind"), given.get("since")
        return decision_log.Chosen(
            given.get("deployment") or None,
            decision_log.read_since(since, now) if since else None,
            None,
            (kind,) if kind else (),
            bool(given.get("changed")),
        )


@needs("appliance.view_decision")
@require_safe
def decisions(request: HttpRequest) -> HttpResponse:
    """Decisions, newest first, a page at a time."""
    form = DecisionFilterForm(request.GET)
    form.is_valid()
    problem = ""
    try:
        rows = decision_log.find_decisions(form.chosen(timezone.now()))
        total = rows.count()
        cursor = form.cleaned_data.get("cursor")
        part = list((decision_log.after_cursor(rows, cursor) if cursor else rows)[: ROWS + 1])
    except VerbError as error:
        part, total, problem = [], 0, str(error)
    if request.GET.get("format") == "csv" and not problem:
        return csv_response(rows)
    kept = {key: value for key, value in form.cleaned_data.items() if value and key != "cursor"}
    kept |= {"changed": "on"} if kept.get("changed") else {}
    older = urlencode(kept | {"cursor": decision_log.cursor_of(part[ROWS - 1])}) if len(part) > ROWS else ""
    context = {
        "rows": [decision_line(row) for row in part[:ROWS]],
        "total": total,
        "problem": problem,
        "given": form.cleaned_data,
        "names": Deployment.objects.values_list("name", flat=True)[:_NAMES_SHOWN],
        "kinds": decision_log.known_kinds(),
        "spans": _SPANS,
        "older": older,
        "export": urlencode(kept | {"format": "csv"}),
    }
    return render_page(request, "dashboard/decisions.html", "Decisions", context)


def decision_line(row: Decision) -> dict[str, Any]:
    """What a line of the list shows, as plain texts."""
    return {
        "pk": row.pk,
        "at": instant_text(row.at),
        "deployment": row.deployment,
        "change": change_text(row),
        "dry_run": row.dry_run,
        "reason": bounded(row.reason),
        "lines": [bounded(line) for line in decision_log.explain(row)],
    }
