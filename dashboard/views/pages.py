"""What our pages share: the admin's frame around them, and parts that are asked for again."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from dashboard.access import is_partial


def render_page(request: HttpRequest, template: str, title: str, context: dict[str, Any]) -> HttpResponse:
    """A whole page in the admin's frame."""
    return render(request, template, {**admin.site.each_context(request), "title": title, **context})


def render_live(
    request: HttpRequest, page: str, part: str, title: str, context: dict[str, Any]
) -> HttpResponse:
    """The page; where it is open already and asks again, the part of it that changes."""
    if is_partial(request):
        return render(request, part, context)
    return render_page(request, page, title, context)
