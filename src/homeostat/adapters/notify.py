"""Alerts to people, through apprise: mail, chat, pagers, webhooks, over a hundred services, each an address."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apprise import NotifyType

NOBODY = "no service that apprise knows has an address like it"
REFUSED = "the service did not take the message"
_TYPES: Mapping[str, str] = {"info": "info", "warning": "warning", "critical": "failure", "over": "success"}


class AppriseChannels:
    """`ports.Channels`. An address holds secrets: it is in no log, no error and no file."""

    def tell(self, address: str, title: str, text: str, severity: str) -> str:
        import apprise  # slow: it reads every plugin
        from apprise import Apprise, AppriseAsset

        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its messages hold addresses
        asset = AppriseAsset(
            app_id="Homeostat", app_desc="Homeostat", async_mode=False, storage_mode=apprise.PersistentStoreMode.MEMORY
        )
        service = Apprise(asset=asset)
        with warnings.catch_warnings():  # its plugins, all read by the first address, use what Python 3.13 drops
            warnings.simplefilter("ignore", DeprecationWarning)
            if not service.add(address):
                return NOBODY
        kind: NotifyType = apprise.NotifyType(_TYPES[severity])
        return "" if service.notify(title=title, body=text, notify_type=kind) else REFUSED


def channel_name(address: str) -> str:
    """What a channel is called where its address must not be read: its kind, and 24 bits that tell it from others."""
    return f"{address.partition('://')[0]}-{hashlib.sha256(address.encode()).hexdigest()[:6]}"
