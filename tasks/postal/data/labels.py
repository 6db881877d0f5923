"""The lines that people labelled by hand in the source distribution of usaddress 0.5.16 (MIT): US
addresses as they are typed, a tag for each word. FIELDS says which tag goes to which field.

A line's white space is one space each; a value is the text of the line from the first word of the
field to the last, without the white space, commas and other marks (ENDS) at its ends. Lines of one
street and city are a family, which is on one side: GOLD_SHARE of the families are gold, by the hash
of their names. What becomes no row is counted (`Left`).
"""

import re
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from potstill.core.errors import UserError
from potstill.core.jsonl import row_id

SDIST = "usaddress-0.5.16.tar.gz"
SHA256 = "f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6"
FILES = ("labeled", "us50_messiest_manual_label", "us50_train_tagged", "multi_word_state_addresses")
REGISTER = "openaddress_us_ia_linn"  # 95,156 addresses of a county, from OpenAddresses
GOLD_SHARE = 0.3  # of the families
ENDS = ' ,;:"-'  # what no value begins or ends with
FIELDS = {
    "recipient": "Recipient BuildingName LandmarkName",
    "number": "AddressNumberPrefix AddressNumber AddressNumberSuffix",
    "street": "StreetNamePreModifier StreetNamePreDirectional StreetNamePreType StreetName "
    "StreetNamePostType StreetNamePostDirectional StreetNamePostModifier suffix",
    "unit": "OccupancyType OccupancyIdentifier SubaddressType SubaddressIdentifier USPSBoxType "
    "USPSBoxID USPSBoxGroupType USPSBoxGroupID",
    "city": "PlaceName",
    "state": "StateName",
    "zip": "ZipCode ZipPlus4",
}
FIELD_OF = {tag: field for field, tags in FIELDS.items() for tag in tags.split()}
CROSSING = ("CornerOf", "IntersectionSeparator")
NO_FIELD = ("CountryName", "NotAddress")  # words that belong to none
NUMBERED = re.compile(  # a road of the state or the county, in the name of a street
    r"(?i)\b(high ?way|hwy|route|rte?|interstate|fm|cr|sr|(county|state|farm|co) (road|rd))\b"
)


class Word(NamedTuple):
    """A labelled word: its tag, and where it stands in the line."""

    tag: str
    start: int
    end: int


class Labelled(NamedTuple):
    """A line with its labelled words."""

    text: str
    words: list[Word]


Answer = dict[str, str | None]


class Row(NamedTuple):
    """A line that became a row."""

    line: Labelled
    answer: Answer
    family: str
    slice: str
    gold: bool


Left = Counter[str]  # of the lines that became no row, by reason


def read(archive: Path, files: Iterable[str] = FILES) -> list[Labelled]:
    """The labelled lines of the distribution, in the order of its `files`. Raises UserError when
    one of them is missing, or has a tag that FIELDS does not name."""
    top = SDIST.removesuffix(".tar.gz")
    found: list[Labelled] = []
    with tarfile.open(archive) as tar:
        for name in files:
            member = f"{top}/training/{name}.xml"
            try:
                file = tar.extractfile(member)
            except KeyError:
                file = None
            if file is None:
                raise UserError(f"{archive}: {member} is missing: delete the archive")
            found += (labelled(line) for line in ET.fromstring(file.read()))
    unknown = {word.tag for line in found for word in line.words}
    if unknown := unknown - FIELD_OF.keys() - set(CROSSING) - set(NO_FIELD):
        raise UserError(f"{archive}: tag {min(unknown)} is unknown, expected those of FIELDS")
    return found


def labelled(element: ET.Element) -> Labelled:
    """A line from its XML, an element for each word: <AddressNumber>9</AddressNumber> …"""
    text, words = "", list[Word]()
    for child in element:
        whole = re.sub(r"\s+", " ", (child.text or "") + (child.tail or ""))
        word = " ".join((child.text or "").split())
        words.append(Word(child.tag, len(text), len(text) + len(word)))
        text += whole
    return Labelled(text.rstrip(), words)


def answer(line: Labelled) -> Answer | None:
    """What stands in each field, null where nothing does; None where the words of a field stand in
    two places, so that it is no span of the line."""
    spans: dict[str, tuple[int, int]] = {}
    last = None
    for word in line.words:
        field = FIELD_OF.get(word.tag)
        if field and field in spans and field != last:
            return None
        if field:
            spans[field] = (spans.get(field, word[1:])[0], word.end)
        last = field
    found = {field: line.text[slice(*spans[field])].strip(ENDS) for field in spans}
    return {field: found.get(field) or None for field in FIELDS}


def slice_of(line: Labelled, given: Answer) -> str:
    """The first that fits: no_state; highway_rural, a numbered road or a rural route; messy, names
    somebody or lacks the city, or has neither number and street nor a box; unit; regular."""
    if not given["state"]:
        return "no_state"
    route = any(word.tag == "USPSBoxGroupType" for word in line.words)
    if route or NUMBERED.search(given["street"] or ""):
        return "highway_rural"
    at = (given["number"] and given["street"]) or given["unit"]
    if given["recipient"] or not given["city"] or not at:
        return "messy"
    return "unit" if given["unit"] else "regular"


def family_of(text: str, given: Answer) -> str:
    """The name of a line's family: street and city, or the line itself where it has neither."""
    parts = (given["street"], given["city"]) if given["street"] or given["city"] else (text,)
    return row_id({"family": [re.sub(r"\W+", " ", part or "").lower().strip() for part in parts]})


def key(text: str) -> str:
    """The same for two lines that are one but for marks, case and white space."""
    return re.sub(r"\W+", "", text).lower()


def is_gold(family: str) -> bool:
    """On which side a family is, by its hash."""
    return int(family, 16) < GOLD_SHARE * 16 ** len(family)


def rows(lines: Iterable[Labelled]) -> tuple[list[Row], Left]:
    """The rows, and how many lines became none. A line that stands there twice, but for commas,
    case and white space, is one: the first."""
    made: dict[str, Row] = {}
    left: Left = Counter()
    for line in lines:
        given = answer(line)
        if any(word.tag in CROSSING for word in line.words):
            left["a crossing of two streets"] += 1
        elif given is None:
            left["a field in two places"] += 1
        elif sum(value is not None for value in given.values()) < 2:
            left["fewer than two fields"] += 1
        elif (name := key(line.text)) in made:
            left["there twice"] += 1
        else:
            family = family_of(line.text, given)
            made[name] = Row(line, given, family, slice_of(line, given), is_gold(family))
    return list(made.values()), left


def registered(lines: Iterable[Labelled], made: list[Row], most: int) -> list[Row]:
    """Up to `most` rows of the register to train on: of each street and city that no row has yet
    and that is not gold's the first, in the order of their families' hashes."""
    known = {row.family for row in made}
    first: dict[str, Row] = {}
    for line in lines:
        if (given := answer(line)) and given["street"] and given["city"]:
            family = family_of(line.text, given)
            if family not in known and not is_gold(family):
                row = Row(line, given, family, slice_of(line, given), False)
                first.setdefault(family, row)
    return [first[family] for family in sorted(first)[:most]]
