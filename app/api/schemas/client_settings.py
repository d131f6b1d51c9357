"""The part of the configuration that response schemas need."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What every client of this service is told besides its own login."""

    sip_domain: str
    rtc_host: str | None = None
    """The signalling server that the WebRTC SDK is to use; None: the SDK's own choice."""
    rtc_region: str | None = None

    def sip_uri(self, sip_username: str) -> str:
        return f"sip:{sip_username}@{self.sip_domain}"
