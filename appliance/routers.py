"""Which database holds which rows."""

from typing import Any

from django.db.models import Model

HISTORY = "history"
_HISTORY_MODELS = frozenset({"metricpoint"})


class HistoryRouter:
    """Metric history lives in a database of its own; everything else in the default one."""

    def db_for_read(self, model: type[Model], **_: Any) -> str | None:
        name = model._meta.model_name  # noqa: SLF001 - Django's own name for it
        return HISTORY if name in _HISTORY_MODELS else None

    def db_for_write(self, model: type[Model], **_: Any) -> str | None:
        return self.db_for_read(model)

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **_: Any) -> bool | None:
        if app_label == "appliance" and model_name is not None:
            return (db == HISTORY) == (model_name in _HISTORY_MODELS)
        return db != HISTORY
