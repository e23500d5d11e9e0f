"""The notification block that alarms go through, made from an address."""

from contextlib import suppress
from urllib.parse import urlsplit

from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from pydantic import SecretStr

from regraft.errors import RegraftError

_TEMPLATE = {"text": "{{subject}}\n{{body}}", "subject": "{{subject}}", "body": "{{body}}"}


def make_block(name: str, address: str) -> None:
    """Make the block of this name, or give the one that is there this address, which is kept as a secret.

    A web address other than Slack's gets JSON with `text`, `subject` and `body`. Everything else goes to Apprise, which
    Prefect's Slack block is made of: `mailtos://user:password@example.com?to=me@example.com` is a mailbox.

    Raises:
        RegraftError: it is no address; the message does not repeat it.
    """
    parts = urlsplit(address)
    if parts.scheme in ("http", "https") and not (parts.hostname or "").startswith("hooks.slack"):
        block = CustomWebhookNotificationBlock(
            name=name,
            url="{{address}}",
            json_data=_TEMPLATE,
            secrets={"address": address},  # type: ignore[arg-type]
        )
        other = SlackWebhook
    else:
        from apprise import Apprise

        if parts.scheme in ("mailto", "mailtos") and "format=" not in parts.query:
            # Else a mailbox takes the message for HTML, and it may quote names of photos.
            address += f"{'&' if parts.query else '?'}format=text"
        if not Apprise.instantiate(address, suppress_exceptions=True):
            raise RegraftError(
                "REGRAFT_ALARM_URL is no address that Apprise knows. Expected https://hooks.slack.com/services/..., "
                "another https:// address, or mailtos://user:password@host?to=address."
            )
        block = SlackWebhook(url=SecretStr(address))
        other = CustomWebhookNotificationBlock
    block.save(name, overwrite=True)
    with suppress(ValueError):
        other.delete(name)  # of a former address
