"""Which generation the route snapshot has."""

import secrets

from django.db import models


def new_epoch() -> str:
    """A name for a database, so that gateways tell a new or restored one from an old one."""
    return secrets.token_hex(8)


class RouteState(models.Model):
    """The one row that counts changes of what gateways must know."""

    epoch = models.CharField(max_length=16, default=new_epoch)
    number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.epoch}:{self.number}"
