"""The bytes of a user's file → its text, in UTF-8, UTF-16 or UTF-32, with a byte order mark or
without."""

import codecs
import unicodedata
from contextlib import suppress
from pathlib import Path

from potstill.core.errors import UserError

KNOWN = "expected CSV, TSV, JSON, JSON Lines, Parquet or Excel (.xlsx)"
BOMS = {  # the longer ones first: that of UTF-32 begins as that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NO_SIGNS = {"Cc", "Cn", "Co"}  # control characters, and those that Unicode does not have


def decoded(path: Path, raw: bytes) -> tuple[str, tuple[str, ...]]:
    """The text of a file and what is unusual about it. A byte that is not UTF-8 becomes half a
    surrogate pair, so that only its own row is faulty. Raises UserError where all are no text."""
    encoding = next((name for mark, name in BOMS.items() if raw.startswith(mark)), "")
    encoding = encoding or _unmarked(raw) or "utf-8"
    if encoding == "utf-8" and raw[:1000].count(0) * 3 > len(raw[:1000]):
        found = "NUL bytes, as of no text, or of UTF-16 that cannot be told for sure"
        raise UserError(f"{path}: found {found}: save the file as UTF-8; {KNOWN}")
    utf8 = encoding.startswith("utf-8")
    try:
        text = raw.decode(encoding, "surrogateescape" if utf8 else "surrogatepass")
    except UnicodeDecodeError as error:
        where = f"{path}: byte {error.start + 1} is not {encoding.upper()}"
        raise UserError(f"{where}: save the file as UTF-8") from None
    marks = [] if utf8 else [f"it is {encoding.upper()}"]
    marks += ["it begins with a byte order mark"] if encoding == "utf-8-sig" else []
    return text, (*marks, *(["its lines end in CRLF"] if "\r\n" in text else []))


def _unmarked(raw: bytes) -> str:
    """UTF-16 or UTF-32 without a byte order mark; "" where that is not beyond doubt. Each sign of
    ASCII has its NUL bytes in places that tell the byte order, and what is read in another order
    has hardly any. In what may be UTF-8 with stray NUL bytes, they are most of the signs."""
    if raw.count(0) * 100 < len(raw):
        return ""
    found, share = dict[str, int](), 50  # signs of ASCII
    with suppress(UnicodeDecodeError):
        raw.decode()
        share = 2
    for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        with suppress(UnicodeDecodeError):
            text = raw.decode(name)
            kinds = {unicodedata.category(sign) for sign in set(text) - set("\t\r\n")}
            ascii = len(text.encode("ascii", "ignore"))
            if not kinds & NO_SIGNS and ascii > 2 and ascii * share > len(text):
                found[name] = ascii
    best = max(found, key=lambda name: found[name], default="")
    return best if best and found[best] > 0.8 * sum(found.values()) else ""
