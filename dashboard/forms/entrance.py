"""The log-in form."""

from typing import Any

from django.core.exceptions import ValidationError
from unfold.forms import AuthenticationForm

from dashboard.throttle import WINDOW_S, count_attempt, forget_attempts


class ThrottledLoginForm(AuthenticationForm):
    """Takes staff alone, and so many attempts for one name from one address."""

    def clean(self) -> dict[str, Any]:
        address = self.request.META.get("REMOTE_ADDR") or ""
        username = self.cleaned_data.get("username") or ""
        if not count_attempt(address, username):
            raise ValidationError(
                f"Too many attempts. Wait {WINDOW_S // 60} minutes, then try again.", code="throttled"
            )
        cleaned: dict[str, Any] = super().clean()
        forget_attempts(address, username)
        return cleaned
