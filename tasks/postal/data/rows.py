"""Make the rows of the postal task: `python -m tasks.postal.data.rows` writes data/gold.jsonl and
data/own/messages.jsonl. data/dvc.yaml runs it before the pipeline.

They are the lines that people labelled by hand in the source distribution of usaddress 0.5.16
(MIT): US addresses as they are typed, a tag for each word. FIELDS says which tag goes to which
field. A line's white space is one space each; a value is the text of the line from the first word
of the field to the last, without the white space, commas and other marks (ENDS) at its ends.

A gold row: {"id": "…", "text": "9 Elm St Apt 2, Avon IL 61415", "slice": "unit",
             "gold": {"recipient": null, "number": "9", "street": "Elm St", "unit": "Apt 2", …}}
An own row: {"id": "…", "family": "…", "messages": [the student's prompt, the line, the answer]},
             the answer's values with the space before them (`spaced`)

Lines of one street and city are a family, which is on one side: GOLD_SHARE of the families are
gold, by the hash of their names. What is left out is counted (`Left`).
"""

import contextlib
import json
import re
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from potstill.core import stage
from potstill.core.errors import UserError
from potstill.core.jsonl import row_id, write_jsonl
from potstill.task import settings
from tasks.postal.data import fetch

DATA = Path(__file__).resolve().parent
SDIST = "usaddress-0.5.16.tar.gz"
SHA256 = "f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6"
FILES = ("labeled", "us50_messiest_manual_label", "us50_train_tagged", "multi_word_state_addresses")
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


def read(archive: Path) -> list[Labelled]:
    """The labelled lines of the distribution, in the order of its files. Raises UserError when one
    of FILES is missing, or has a tag that FIELDS does not name."""
    top = SDIST.removesuffix(".tar.gz")
    found: list[Labelled] = []
    with tarfile.open(archive) as tar:
        for name in FILES:
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
        elif (key := re.sub(r"\W+", "", line.text).lower()) in made:
            left["there twice"] += 1
        else:
            family = family_of(line.text, given)
            gold = int(family, 16) < GOLD_SHARE * 16 ** len(family)
            made[key] = Row(line, given, family, slice_of(line, given), gold)
    return list(made.values()), left


def spaced(value: str | None) -> str | None:
    """A value as it is taught: with the space before it, unless it begins with a digit. So its
    tokens are those of the line: " Supply" is one token, "Supply" two others, which the student
    would have to spell anew. The checks ignore white space."""
    return value if value is None or value[0].isdigit() else f" {value}"


def files(made: list[Row]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each file of data/ with its rows."""
    with contextlib.chdir(DATA.parent):
        task = settings.load()
        gold: list[dict[str, Any]] = []
        own: list[dict[str, Any]] = []
        for row in made:
            input = {"text": row.line.text}
            id = row_id(input)
            if row.gold:
                gold.append({"id": id, **input, "slice": row.slice, "gold": row.answer})
                continue
            taught = {field: spaced(value) for field, value in row.answer.items()}
            said = json.dumps(taught, ensure_ascii=False, separators=(",", ":"))
            chat = [*task.messages("student", input), {"role": "assistant", "content": said}]
            own.append({"id": id, "family": row.family, "messages": chat})
    yield "gold.jsonl", gold
    yield "own/messages.jsonl", own


def main() -> None:
    lines = read(fetch.sdist(SDIST, SHA256))
    made, left = rows(lines)
    counts = []
    for name, written in files(made):
        write_jsonl(DATA / name, written)
        counts.append(f"{len(written):,} in data/{name}")
    counts += [f"{number:,} left out, {reason}" for reason, number in left.items()]
    print(f"rows: {len(lines):,} labelled lines = {' + '.join(counts)}")


if __name__ == "__main__":
    stage.run(main)
