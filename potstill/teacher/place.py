"""Where the teacher is: the two variables of the environment."""

import ipaddress
import os
import re
import socket
import unicodedata
from urllib.parse import urlsplit

from potstill.core.errors import UserError

_PLAIN = re.compile(r"[!-~]*")


def from_environment(model: str) -> tuple[str, str]:
    """TEACHER_BASE_URL and TEACHER_API_KEY, without white space around them. Raises UserError where
    one is missing, holds a sign that no such value has, or the URL is none."""
    names = ("TEACHER_BASE_URL", "TEACHER_API_KEY")
    url, key = (os.environ.get(name, "").strip(" \t\r\n") for name in names)
    if not url or not key:
        raise UserError(
            f"teacher.model is {model}, which needs TEACHER_BASE_URL (such as https://host/v1) and "
            "TEACHER_API_KEY in the environment; without them use teacher.model: scripted"
        )
    _check_signs("TEACHER_BASE_URL", url, " ")
    _check_signs("TEACHER_API_KEY", key)
    if not re.fullmatch(r"https?://[^\s@?#]+", url) or not _host(url):
        raise UserError(
            "TEACHER_BASE_URL is no URL such as https://host/v1, without user, password or query"
        )
    return url, key


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine, which no proxy can reach."""
    host = _host(url).rstrip(".")
    if host in ("localhost", "ip6-localhost", "localhost.localdomain") or host.endswith(
        ".localhost"
    ):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:  # 127.1, 0x7f000001
            address = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _host(url: str) -> str:
    """The URL's host in small letters; empty where it has none, or a port that is none."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "") if parts.port != 0 else ""
    except ValueError:
        return ""


def _check_signs(name: str, value: str, allowed: str = "") -> None:
    """Raises UserError for the first sign that is no plain ASCII, or a quotation mark; never shows
    the value."""
    for place, sign in enumerate(value, 1):
        if sign in allowed or ("!" <= sign <= "~" and sign not in "\"'"):
            continue
        called = unicodedata.name(sign, _CALLED.get(sign, "a character without a name")).lower()
        raise UserError(
            f"{name} has a sign that belongs to no such value: {called} (U+{ord(sign):04X}) at "
            f"place {place} of {len(value)}: set it again, typed or copied without that"
        )


_CALLED = {"\n": "a line end", "\r": "a line end", "\t": "a tab", "\0": "a nul"}
