"""The part of the configuration that response schemas need."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Settings that every client receives with its login."""

    sip_domain: str
    rtc_host: str | None = None
    """The signalling server for the WebRTC SDK. None means the SDK's default."""
    rtc_region: str | None = None

    def sip_uri(self, sip_username: str) -> str:
        return f"sip:{sip_username}@{self.sip_domain}"
