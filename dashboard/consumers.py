"""The websocket behind the overview."""

import time
from importlib import import_module
from typing import Any

from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from dashboard.access import may_look
from dashboard.hub import TooManyViewers, hub

_RECHECK_S = 30.0
_TRY_AGAIN_LATER = 1013
_NOT_ALLOWED = 4403


class OverviewConsumer(AsyncWebsocketConsumer):
    """Sends the current snapshot on connect, then each one the hub makes. Takes nothing in."""

    async def connect(self) -> None:
        self.checked_at = time.monotonic()
        self.joined = False
        if not await database_sync_to_async(may_look)(self.scope["user"]):
            await self.close(_NOT_ALLOWED)
            return
        try:
            await hub.join(self.channel_name)
        except TooManyViewers:
            await self.close(_TRY_AGAIN_LATER)
            return
        self.joined = True
        await self.accept()
        await self.send(text_data=await hub.build())

    async def disconnect(self, _code: int) -> None:
        if self.joined:
            await hub.leave(self.channel_name)

    async def receive(self, **_: Any) -> None:
        await self.close(_NOT_ALLOWED)

    async def overview_snapshot(self, event: dict[str, Any]) -> None:
        """Pass a snapshot on, and see now and then whether this viewer is still logged in."""
        if time.monotonic() - self.checked_at > _RECHECK_S:
            self.checked_at = time.monotonic()
            if not await _is_still_allowed(self.scope):
                await self.close(_NOT_ALLOWED)
                return
        await self.send(text_data=event["text"])


async def _is_still_allowed(scope: dict[str, Any]) -> bool:
    store = import_module(settings.SESSION_ENGINE).SessionStore(scope["session"].session_key)
    user = await get_user({"session": store})
    return bool(await database_sync_to_async(may_look)(user))
