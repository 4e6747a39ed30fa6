"""Metric history, in a database file of its own: it is large, and may be lost without harm."""

from django.db import models


class MetricPoint(models.Model):
    """Means over `resolution_s` seconds from `at` (Unix seconds) of one series.

    A series is `deployment:NAME` or `node:NAME`; `values` maps a metric's name to a number, or to
    null where it could not be told.
    """

    series = models.CharField(max_length=80)
    resolution_s = models.PositiveIntegerField()
    at = models.PositiveBigIntegerField()
    values = models.JSONField(default=dict)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("series", "resolution_s", "at"), name="metric_point_once"),
        )
        indexes = (models.Index(fields=("resolution_s", "at")),)

    def __str__(self) -> str:
        return f"{self.series} at {self.at}"
