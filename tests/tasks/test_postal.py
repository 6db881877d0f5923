"""The postal task: which label becomes which field, the slices, the split by family, and where the
rows come from. All lines here are made up."""

import hashlib
import io
import json
import tarfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest

from potstill.checks import registry
from potstill.core import project
from potstill.core.errors import UserError
from potstill.task import settings
from tasks.postal.data import fetch, labels, recombine, rows
from tests.conftest import ROOT

HOME = ROOT / "tasks/postal"
SHORT = {
    "num": "AddressNumber",
    "half": "AddressNumberSuffix",
    "dir": "StreetNamePreDirectional",
    "pre": "StreetNamePreType",
    "st": "StreetName",
    "kind": "StreetNamePostType",
    "occ": "OccupancyType",
    "id": "OccupancyIdentifier",
    "box": "USPSBoxType",
    "boxid": "USPSBoxID",
    "route": "USPSBoxGroupType",
    "routeid": "USPSBoxGroupID",
    "who": "Recipient",
    "house": "BuildingName",
    "city": "PlaceName",
    "state": "StateName",
    "zip": "ZipCode",
    "land": "CountryName",
    "and": "IntersectionSeparator",
}


def xml(text: str) -> str:
    """A line of the distribution's form, from words such as num:9."""
    words = (word.split(":", 1) for word in text.split())
    inner = " ".join(f"<{SHORT[tag]}>{word}</{SHORT[tag]}>" for tag, word in words)
    return f"<AddressString>{inner}</AddressString>"


def line(text: str) -> labels.Labelled:
    return labels.labelled(ET.fromstring(xml(text)))


def archive(folder: Path, *lines: str) -> Path:
    """A distribution with these lines in its first file."""
    path = folder / labels.SDIST
    with tarfile.open(path, "w:gz") as tar:
        for name in labels.FILES:
            inner = "\n".join(map(xml, lines)) if name == labels.FILES[0] else ""
            data = f"<AddressCollection>{inner}</AddressCollection>".encode()
            member = f"{labels.SDIST.removesuffix('.tar.gz')}/training/{name}.xml"
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


PLAIN = "num:9 dir:N. st:Elm kind:St., city:New city:Avon, state:IL zip:61415"
UNIT = "num:9 st:Elm occ:Suite id:40, occ:Floor id:2; city:Avon state:IL"
ROUTE = "num:70 pre:County pre:Road st:5 city:Avon state:IL"
RURAL = "route:RR routeid:#2 box:Box boxid:7 city:Avon state:IL"
WHO = "who:Quill who:&amp; who:Co house:Mill num:9 st:Elm city:Avon state:IL zip:61415 land:USA"


@pytest.mark.parametrize(
    ("text", "expected", "part"),
    [
        (PLAIN, "- 9 N._Elm_St. - New_Avon IL 61415", "regular"),
        (UNIT, "- 9 Elm Suite_40,_Floor_2 Avon IL -", "unit"),
        (ROUTE, "- 70 County_Road_5 - Avon IL -", "highway_rural"),
        (RURAL, "- - - RR_#2_Box_7 Avon IL -", "highway_rural"),
        ("box:Box boxid:7, city:Avon state:IL", "- - - Box_7 Avon IL -", "unit"),
        (WHO, "Quill_&_Co_Mill 9 Elm - Avon IL 61415", "messy"),
        ("city:Avon, state:IL", "- - - - Avon IL -", "messy"),
        ("num:9 half:1/2 st:Elm city:Avon", "- 9_1/2 Elm - Avon - -", "no_state"),
    ],
)
def test_fields_and_slice_of_a_line(text: str, expected: str, part: str) -> None:
    found = labels.answer(labelled := line(text))
    assert found is not None
    assert " ".join((value or "-").replace(" ", "_") for value in found.values()) == expected
    assert labels.slice_of(labelled, found) == part


def test_what_is_no_row_is_counted(tmp_path: Path) -> None:
    given = [PLAIN, PLAIN.replace(",", "").lower(), UNIT, "num:9", "num:9 city:Avon num:8"]
    given += ["st:Elm and:at st:Oak city:Avon"]
    made, left = labels.rows(labels.read(archive(tmp_path, *given)))
    assert [row.line.text for row in made] == [line(PLAIN).text, line(UNIT).text]
    assert left == {
        "there twice": 1,
        "fewer than two fields": 1,
        "a field in two places": 1,
        "a crossing of two streets": 1,
    }


def test_a_family_is_on_one_side_and_each_value_stands_in_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Numbers, units, commas and case do not make another family; the shares are as stated."""
    lines = [
        line(f"num:{number} st:{name} kind:St, city:{city}{unit} state:IL zip:6{number:04}")
        for number, name in enumerate(["Ash", "Birch", "Cedar", "ELM", "Fir", "Oak"] * 20, 1)
        for city, unit in (("Avon", ""), ("avon", ""), ("Bern", " occ:Apt id:3"), ("Lodi", ""))
    ]
    sides = defaultdict(set)
    made, left = labels.rows(lines)
    for row in made:
        key = (row.answer["street"] or "").lower(), (row.answer["city"] or "").lower()
        sides[key].add(row.gold)
    assert len(made) + left["there twice"] == len(lines) and left["there twice"] == 120
    assert len(sides) == 18 and all(len(found) == 1 for found in sides.values())
    assert 0 < sum(found == {True} for found in sides.values()) < 10
    monkeypatch.chdir(HOME)
    t = settings.load()
    files = dict(rows.files(made))
    assert len(files["gold.jsonl"]) + len(files["own/messages.jsonl"]) == len(made)
    for given in files["gold.jsonl"]:
        expecting = given | {"expected": given["gold"]}
        assert registry.check(t, expecting, json.dumps(given["gold"])) == []
        reasons = registry.check(t, expecting, json.dumps(given["gold"] | {"city": "Nowhere"}))
        assert reasons == ["exact_match: another answer is expected", "grounded: city"]
    for given in files["own/messages.jsonl"]:
        system, user, answer = (turn["content"] for turn in given["messages"])
        assert system == t.messages("student", {"text": user})[0]["content"]
        assert registry.check(t, {"text": user, "expected": json.loads(answer)}, answer) == []


def test_more_lines_are_labelled_and_of_no_gold_family() -> None:
    """Each value of a new line is what its labels say and comes from the training side; the same
    lines come each time; a line taken apart is the line. Of the register come other families."""
    streets = ["Ash", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Gum", "Hazel", "Ivy", "Juniper"]
    given = [
        f"num:{number} st:{name} kind:{kind} {unit} city:{city}, state:{state} zip:6{number:04}"
        for number, (name, kind, unit, city, state) in enumerate(
            (name, kind, unit, city, state)
            for name in streets
            for kind, unit in (("St.,", "occ:Apt id:3"), ("AVE", ""))
            for city, state in (("Avon", "IL"), ("bern", "Ohio"))
        )
    ]
    given += [
        "who:Quill who:&amp; who:Co num:9 st:Elm city:Avon state:IL",
        "box:Box boxid:7, city:X",
    ]
    made, _ = labels.rows(map(line, given))
    for row in made:
        again = recombine.joined(recombine.parts(row.line))
        assert again == row.line._replace(words=again.words)
        assert labels.answer(again) == row.answer
    lines = [line(PLAIN), line(UNIT), line("num:9 st:Quay city:Bern")]  # gold, known, new
    register = labels.registered(lines, made, 2)
    assert [row.line for row in register] == lines[2:] and not register[0].gold
    new = list(recombine.recombined(made, register, 3))
    assert new == list(recombine.recombined(made, register, 3))
    learnt = [row for row in made if not row.gold]
    assert 2 * len(learnt) < len(new) <= 3 * len(learnt)
    assert len({labels.key(row.line.text) for row in made + new}) == len(made + new)
    assert {row.family for row in new} <= {row.family for row in learnt}
    known = {letters(value) for row in learnt for value in row.answer.values() if value}
    known |= {letters(row.answer["street"] or "") for row in register}
    for row in new:
        assert not row.gold and row.answer == labels.answer(row.line)
        assert not labels.is_gold(labels.family_of(row.line.text, row.answer))
        values = [value for value in row.answer.values() if value]
        assert len(values) > 1 and all(value in row.line.text for value in values)
        own = {letters(value) for field, value in row.answer.items() if value and field != "unit"}
        assert own <= known  # two units may be one
    assert any(row.answer["recipient"] for row in new)
    assert any(row.line.text.isupper() for row in new)


def letters(value: str) -> str:
    """A value but for case and the order of its letters, which a misspelling changes."""
    return "".join(sorted(value.lower()))


def test_a_label_that_nothing_is_said_of_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHORT, "new", "PlanetName")
    with pytest.raises(UserError, match="tag PlanetName is unknown, expected those of FIELDS"):
        labels.read(archive(tmp_path, PLAIN, "num:9 new:Mars"))


FILE = "thing-1.0.tar.gz"
DATA = b"what is in it"
SHA256 = hashlib.sha256(DATA).hexdigest()
HTML = f'<a href="../../files/{FILE}#sha256={SHA256}">{FILE}</a>'
PEP691 = json.dumps({"files": [{"url": f"../../files/{FILE}", "hashes": {"sha256": SHA256}}]})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index that pip is set to, and a cache of its own."""
    for name in ("thing", "files"):
        (tmp_path / "index" / name).mkdir(parents=True)
    (tmp_path / "index/files" / FILE).write_bytes(DATA)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "none").as_uri())
    monkeypatch.setattr(project, "cache", lambda: tmp_path / "cache")
    return tmp_path


@pytest.mark.parametrize("page", [HTML, PEP691])
def test_the_file_comes_from_pip_s_index_once(index: Path, page: str) -> None:
    (index / "index/thing/index.html").write_text(page.replace("../../", "../"))
    path = fetch.sdist(FILE, SHA256)
    assert path.read_bytes() == DATA and path.parent == index / "cache/packages"
    (index / "index/thing/index.html").unlink()
    assert fetch.sdist(FILE, SHA256) == path


@pytest.mark.parametrize("page", ["", HTML.replace(SHA256, "0" * 64)])
def test_no_file_of_the_hash_is_one_sentence(index: Path, page: str) -> None:
    (index / "index/thing/index.html").write_text(page)
    with pytest.raises(UserError, match=rf"{FILE} is missing, and no index .* SHA-256 {SHA256}: "):
        fetch.sdist(FILE, SHA256)


def test_other_bytes_are_refused(index: Path) -> None:
    (index / "index/thing/index.html").write_text(HTML.replace("../../", "../"))
    (index / "index/files" / FILE).write_bytes(b"other")
    with pytest.raises(UserError, match="is missing"):  # it is not what its page says
        fetch.sdist(FILE, SHA256)
    path = index / "cache/packages" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    with pytest.raises(UserError, match=rf"its SHA-256 is \w{{64}}, expected {SHA256}: delete"):
        fetch.sdist(FILE, SHA256)
