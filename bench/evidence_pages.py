"""Draws the pages of bench.evidence: eight layouts in six languages, of which it is known where each value stands.

The pens and the camera are those of `examples/`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image

from bench.evidence_sheet import Box, Sheet, hyphenated
from bench.evidence_words import LANGUAGES, Language, manner

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import camera
import ink
from zxingcpp import BarcodeFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A value of a page's record."""

    kind: str  #: a row of the bench's table
    value: Any  #: as the record has it
    boxes: tuple[Box, ...]  #: 0 to 1 of the page, one for each line; none if the value is not written there


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One drawn page."""

    name: str
    data: bytes  #: JPEG
    record: Any
    schema: dict[str, Any]
    values: dict[str, Value]  #: JSON Pointer to value


def till(sheet: Sheet) -> None:
    """A receipt in a typewriter's face: names on the left, amounts on the right."""
    put, label = sheet.put, sheet.label
    put((330, 60), (shop := sheet.shop("merchant")), 30, side="m", merchant=shop)
    street, town = sheet.address("address")
    put((330, 92), street, side="m", address=street)
    put((330, 118), town, side="m", address=town)
    put((40, 160), (day := sheet.day("date")), date=day)
    put((620, 160), (hour := sheet.time("time")), side="r", time=hour)
    sheet.pen.dashes(40, 620, 172)
    y, net = 206, Decimal(0)
    for at in range(int(sheet.rng.integers(3, 6))):
        put((40, y), (words := sheet.goods(f"items__{at}__description")), **{f"items__{at}__description": words})
        price = sheet.amount(f"items__{at}__price", 1, 90)
        net += Decimal(str(sheet.truth[f"/items/{at}/price"]))
        put((620, y), price, side="r", **{f"items__{at}__price": price})
        y += 30
    sheet.pen.dashes(40, 620, y - 10)
    rate = int(sheet.rng.choice([7, 19, 20, 21, 22]))
    tax = (net * rate / 100).quantize(Decimal("0.01"))
    sheet.know("taxRate", "percent", rate)
    for name, text, value in (("net", label("net"), net), ("tax", f"{label('tax')} {rate} %", tax)):
        put((40, y + 18), text, **({"taxRate": f"{rate} %"} if name == "tax" else {}))
        put((620, y + 18), (written := sheet.amount(name, 0, 0, value=value)), side="r", **{name: written})
        y += 30
    put((40, y + 26), label("total").upper(), 27, face="SansMono-Bold")
    put(
        (620, y + 26),
        (written := sheet.amount("total", 0, 0, value=net + tax, sign=True)),
        27,
        face="SansMono-Bold",
        side="r",
        total=written,
    )
    cash = (net + tax).quantize(Decimal(1)) + 10
    for name, value in (("cash", cash), ("change", cash - net - tax)):
        y += 30
        put((40, y + 36), label(name))
        put((620, y + 36), (written := sheet.amount(name, 0, 0, value=value)), side="r", **{name: written})
    sheet.know("paymentStatus", "enum", "settled")


def bistro(sheet: Sheet) -> None:
    """A bill: the count before each dish, the amount after it."""
    put, label = sheet.put, sheet.label
    put((330, 64), (shop := sheet.shop("restaurant")), 32, face="SerifCondensed-Bold", side="m", restaurant=shop)
    put((330, 100), (phone := sheet.phone("phone")), side="m", phone=phone)
    put((40, 150), f"{label('number')} {(number := sheet.code('billNumber'))}", billNumber=number)
    put(
        (40, 180),
        f"{label('date')}: {(day := sheet.day('billDate'))}  {(hour := sheet.time('billTime'))}",
        billDate=day,
        billTime=hour,
    )
    y, total = 230, Decimal(0)
    for at in range(int(sheet.rng.integers(3, 6))):
        name = f"lines__{at}__"
        put((40, y), f"{(count := sheet.count(name + 'quantity'))} x", **{name + "quantity": count})
        put((110, y), (words := sheet.goods(name + "dish")), **{name + "dish": words})
        put((620, y), (price := sheet.amount(name + "amount", 2, 60)), side="r", **{name + "amount": price})
        total += Decimal(str(sheet.truth[f"/lines/{at}/amount"]))
        y += 34
    sheet.pen.rule((40, y - 14, 620, y - 14), width=1)
    put((40, y + 24), label("total"), 26, face="Sans-Bold")
    put(
        (620, y + 24),
        (written := sheet.amount("grandTotal", 0, 0, value=total, sign=True)),
        26,
        face="Sans-Bold",
        side="r",
        grandTotal=written,
    )
    put(
        (40, y + 70),
        f"{label('cash')}  {(paid := sheet.amount('cashPaid', 0, 0, value=total.quantize(Decimal(1)) + 20))}",
        cashPaid=paid,
    )
    sheet.know("tipIncluded", "boolean", bool(sheet.rng.random() < 0.5))


def grid(sheet: Sheet) -> None:
    """An invoice with its facts on the right and a ruled table."""
    put, label, pen = sheet.put, sheet.label, sheet.pen
    put((40, 60), (shop := sheet.shop("seller")), 28, face="Sans-Bold", seller=shop)
    put((40, 120), label("customer"), 15)
    put((40, 146), (person := sheet.person("customer__name")), customer__name=person)
    street, town = sheet.address("customer__address")
    put((40, 172), street, customer__address=street)
    put((40, 198), town, customer__address=town)
    facts = (
        ("number", "invoiceNumber", sheet.code("invoiceNumber")),
        ("date", "invoiceDate", sheet.day("invoiceDate")),
        ("due", "dueDate", sheet.day("dueDate")),
    )
    for place, (name, pointer, words) in enumerate(facts):
        put((470, 120 + 28 * place), label(name))
        put((860, 120 + 28 * place), words, side="r", **{pointer: words})
    top, y, net = 250, 250, Decimal(0)
    for x, name, side in ((50, "description", "l"), (520, "quantity", "r"), (690, "price", "r"), (850, "total", "r")):
        put((x, top + 25), label(name), face="Sans-Bold", side=side)
    for at in range(int(sheet.rng.integers(3, 6))):
        y += 36
        name = f"lineItems__{at}__"
        put((50, y + 25), (words := sheet.goods(name + "description")), **{name + "description": words})
        put((520, y + 25), (count := sheet.count(name + "quantity")), side="r", **{name + "quantity": count})
        put((690, y + 25), (price := sheet.amount(name + "unitPrice", 3, 400)), side="r", **{name + "unitPrice": price})
        each = Decimal(str(sheet.truth[f"/lineItems/{at}/unitPrice"])) * sheet.truth[f"/lineItems/{at}/quantity"]
        put(
            (850, y + 25),
            (amount := sheet.amount(name + "lineTotal", 0, 0, value=each)),
            side="r",
            **{name + "lineTotal": amount},
        )
        net += each
        pen.rule((40, y, 860, y), width=1)
    tax = (net * 19 / 100).quantize(Decimal("0.01"))
    for place, (name, value) in enumerate((("net", net), ("tax", tax), ("total", net + tax))):
        put((560, y + 72 + 30 * place), label(name))
        put(
            (850, y + 72 + 30 * place),
            (amount := sheet.amount(name, 0, 0, value=value, sign=name == "total")),
            side="r",
            **{name: amount},
        )
    put((40, y + 190), label("iban"))
    put((140, y + 190), (account := sheet.iban("iban")), iban=account)


def letter(sheet: Sheet) -> None:
    """An invoice as a letter: a name above each value, and descriptions of several lines."""
    put, label = sheet.put, sheet.label
    put((860, 60), (shop := sheet.shop("vendorName")), 26, face="Serif-Bold", side="r", vendorName=shop)
    put((860, 92), (mail := sheet.mail("vendorMail")), side="r", vendorMail=mail)
    for x, name, pointer, words in (
        (40, "number", "documentNumber", sheet.code("documentNumber")),
        (330, "date", "issueDate", sheet.day("issueDate")),
        (600, "due", "payableBy", sheet.day("payableBy")),
    ):
        put((x, 150), label(name), 15)
        put((x, 178), words, **{pointer: words})
    y = 240
    for at in range(2):
        name = f"positions__{at}__"
        whole = sheet.language.long.split(";")[at]
        sheet.know(name + "text", "long text", whole)
        lines = hyphenated(whole, "Serif", sheet.size, 330)
        put((860, y), (amount := sheet.amount(name + "amount", 20, 2500)), side="r", **{name + "amount": amount})
        for line in lines:
            put((40, y), line, **{name + "text": line})
            y += 27
        y += 14
    put((560, y + 20), label("total"), face="Serif-Bold")
    put((860, y + 20), (amount := sheet.amount("amountDue", 30, 6000, sign=True)), face="Serif-Bold", side="r", amountDue=amount)
    put((40, y + 70), f"{label('iban')}: {(account := sheet.iban('bankAccount'))}", bankAccount=account)
    put((40, y + 100), f"{label('reference')}: {(reference := sheet.code('paymentReference'))}", paymentReference=reference)


def parcel(sheet: Sheet) -> None:
    """A carrier's label: small names above the values, and a bar code."""
    put, label, pen = sheet.put, sheet.label, sheet.pen
    put((30, 40), label("from").upper(), 14, face="Sans-Bold")
    put((30, 66), (person := sheet.shop("sender__name")), sender__name=person)
    street, town = sheet.address("sender__address")
    put((30, 92), street, sender__address=street)
    put((30, 118), town, sender__address=town)
    pen.rule((20, 136, 640, 136), width=3)
    put((30, 160), label("to").upper(), 14, face="Sans-Bold")
    put((30, 196), (person := sheet.person("recipient__name")), 28, face="Sans-Bold", recipient__name=person)
    street, town = sheet.address("recipient__address")
    put((30, 232), street, 24, recipient__address=street)
    put((30, 264), town, 24, recipient__address=town)
    put((430, 40), label("date").upper(), 14, face="Sans-Bold")
    put((430, 66), (day := sheet.day("shippedOn")), shippedOn=day)
    weight = Decimal(int(sheet.rng.integers(100, 3000))) / 100
    sheet.know("weightKg", "measure", float(weight))
    put((430, 96), label("weight").upper(), 14, face="Sans-Bold")
    written = sheet.manner.number(weight.quantize(Decimal("0.01")))
    sheet.numbers["weightKg"] = written
    put((430, 122), f"{written} kg", weightKg=written)
    pen.rule((20, 284, 640, 284), width=3)
    number = f"SM{sheet.digits(12)}"
    bars = ink.code(BarcodeFormat.Code128, number, module=2, height=100, quiet=8)
    pen.stamp(bars, (320 - bars.width / 2, 300))
    sheet.know("trackingNumber", "barcode", number)
    if sheet.rng.random() < 0.5:
        sheet.boxes["/trackingNumber"] = [(320 - bars.width / 2 + 16, 300, 320 + bars.width / 2 - 16, 400)]
    else:
        grouped = " ".join((number[:2], *(number[at : at + 4] for at in range(2, 14, 4))))
        put((320, 452), grouped, 24, face="SansMono-Bold", side="m", trackingNumber=grouped)
    put((30, 486), f"{label('reference')}: {(code := sheet.code('orderReference'))}", orderReference=code)


def card(sheet: Sheet) -> None:
    """A business card, which names none of its values."""
    put = sheet.put
    put((40, 70), (person := sheet.person("fullName")), 32, face="Serif-Bold", fullName=person)
    put((40, 112), (shop := sheet.shop("company")), 22, company=shop)
    street, town = sheet.address("officeAddress")
    put((40, 190), f"{street}, {town}", 19, officeAddress=f"{street}, {town}")
    put((40, 224), (phone := sheet.phone("mobile")), 19, mobile=phone)
    put((40, 256), (phone := sheet.phone("office")), 19, office=phone)
    put((40, 288), (mail := sheet.mail("email")), 19, email=mail)
    sheet.know("isFamilyBusiness", "boolean", bool(sheet.rng.random() < 0.5))


def boxed(sheet: Sheet) -> None:
    """A form: small names in the corners of boxes, with the values in them."""
    put, label, pen = sheet.put, sheet.label, sheet.pen
    pen.draw.rectangle((20, 20, 700, 60), fill=(60, 60, 64))
    rows = (
        (
            ("name", "applicant", sheet.person("applicant"), 20, 380),
            ("born", "dateOfBirth", sheet.day("dateOfBirth", 1961), 380, 700),
        ),
        (
            ("phone", "phoneNumber", sheet.phone("phoneNumber"), 20, 380),
            ("email", "emailAddress", sheet.mail("emailAddress"), 380, 700),
        ),
        (("issued", "issuedOn", sheet.day("issuedOn"), 20, 380), ("reference", "caseNumber", sheet.code("caseNumber"), 380, 700)),
        (("iban", "iban", sheet.iban("iban"), 20, 700),),
    )
    y = 80
    for row in rows:
        for name, pointer, words, left, right in row:
            pen.draw.rectangle((left, y, right, y + 62), outline=(90, 90, 90), width=2)
            put((left + 8, y + 20), label(name), 13)
            put((left + 12, y + 50), words, **{pointer: words})
        y += 62
    street, town = sheet.address("residence")
    pen.draw.rectangle((20, y, 700, y + 86), outline=(90, 90, 90), width=2)
    put((28, y + 20), label("address"), 13)
    put((32, y + 48), street, residence=street)
    put((32, y + 75), town, residence=town)
    sheet.know("consentGiven", "boolean", bool(sheet.rng.random() < 0.5))
    sheet.know("applicantKind", "enum", "private_person")


def lines(sheet: Sheet) -> None:
    """A form whose names and values share their lines."""
    put, label = sheet.put, sheet.label
    put((40, 66), (shop := sheet.shop("organisation")), 28, face="Sans-Bold", organisation=shop)
    y = 120
    for name, pointer, make in (
        ("number", "recordNumber", sheet.code),
        ("name", "person", sheet.person),
        ("born", "birthDate", lambda name: sheet.day(name, 1958)),
        ("phone", "phone", sheet.phone),
        ("date", "signedOn", sheet.day),
        ("time", "signedAt", sheet.time),
        ("quantity", "copies", sheet.count),
        ("total", "fee", lambda name: sheet.amount(name, 5, 900, sign=True)),
    ):
        words = make(pointer)
        put((40, y), f"{label(name)}: {words}", **{pointer: words})
        y += 38
    street, town = sheet.address("address")
    put((40, y), f"{label('address')}: {street}", address=street)
    put((40, y + 28), town, address=town)


#: Each layout with its size in pixels, its type's size and face, and the reason for its place in the issue's list.
LAYOUTS: tuple[tuple[Callable[[Sheet], None], tuple[int, int], float, str], ...] = (
    (till, (660, 640), 19, "SansMono"),
    (bistro, (660, 560), 20, "Sans"),
    (grid, (900, 720), 18, "Sans"),
    (letter, (900, 620), 19, "Serif"),
    (parcel, (660, 500), 19, "Sans"),
    (card, (640, 330), 20, "Serif"),
    (boxed, (720, 440), 18, "SansCondensed"),
    (lines, (680, 560), 20, "Sans"),
)


def page(seed: int, number: int) -> Page:
    """Page `number` of a series. Equal arguments give equal pages."""
    rng = default_rng((seed, number))
    draw, size, type_size, face = LAYOUTS[number % len(LAYOUTS)]
    language = LANGUAGES[number // len(LAYOUTS) % len(LANGUAGES)]
    blank = camera.paper(rng, size, (250, 249, 245), grain=1.4)
    sheet = Sheet(
        rng=rng,
        language=language,
        manner=manner(rng, language.code),
        pen=ink.Pen(blank, face),
        size=type_size * float(rng.uniform(0.92, 1.08)),
    )
    draw(sheet)
    image, place = _seen(sheet.pen.image, rng)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=int(rng.integers(55, 92)))
    values = {
        pointer: Value(
            kind=sheet.kinds[pointer],
            value=value,
            boxes=tuple(_placed(box, place, image.size) for box in sheet.boxes.get(pointer, ())),
        )
        for pointer, value in sheet.truth.items()
    }
    record = _record(sheet.truth)
    named = bool(rng.random() < 0.5)
    return Page(
        name=f"{number:03}-{draw.__name__}-{language.code}",
        data=data.getvalue(),
        record=record,
        schema=_schema(record, language if named else None),
        values=values,
    )


def _seen(sheet: Image.Image, rng: Generator) -> tuple[Image.Image, Any]:
    """The sheet as a scanner or a phone gives it, and the 3 x 3 matrix from places on the sheet to places on the picture."""
    if rng.random() < 0.45:
        turn = float(rng.uniform(-1.6, 1.6))
        margin = 24
        wide = Image.new("RGB", (sheet.width + 2 * margin, sheet.height + 2 * margin), (244, 244, 244))
        wide.paste(sheet, (margin, margin))
        grey = camera.scan(wide, rng, turn=turn, dirt=int(rng.integers(0, 60)), levels=int(rng.choice([0, 24, 64])))
        cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        cx, cy = wide.width / 2, wide.height / 2
        moved = np.array([[1, 0, margin], [0, 1, margin], [0, 0, 1.0]])
        turned = np.array([[cos, sin, cx - cos * cx - sin * cy], [-sin, cos, cy + sin * cx - cos * cy], [0, 0, 1]])
        return grey, turned @ moved
    scale = float(rng.uniform(1.0, 1.25))
    size = (round(sheet.width * scale + 120), round(sheet.height * scale + 120))
    table = camera.wood(rng, size, (128, 90, 60)) if rng.random() < 0.5 else camera.linen(rng, size, (120, 124, 130))
    jitter = rng.uniform(-16, 16, (4, 2))
    corners = ((60, 60), (size[0] - 60, 60), (size[0] - 60, size[1] - 60), (60, size[1] - 60))
    quad: Any = tuple((x + float(dx), y + float(dy)) for (x, y), (dx, dy) in zip(corners, jitter, strict=True))
    scene = camera.lay(table, sheet.convert("RGBA"), quad, shadow=((8, 10), 9, 0.6))
    light = camera.lamp(size, (float(rng.uniform(0, 1)), float(rng.uniform(0, 0.8))), bright=1.08, dark=0.62, reach=1.1)
    if rng.random() < 0.4:
        edge = float(rng.uniform(0.2, 0.8)) * size[0]
        light = light * camera.shade(
            size,
            [(edge, -50), (size[0] + 50, -50), (size[0] + 50, size[1] + 50), (edge - 120, size[1] + 50)],
            blur=30,
            darkness=0.35,
        )
    photo = camera.expose(camera.relight(scene, light), rng, blur=float(rng.uniform(0.3, 0.8)), noise=float(rng.uniform(2, 7)))
    numbers = camera._coefficients(quad, sheet.size)
    return photo, np.linalg.inv(np.array([*numbers, 1.0]).reshape(3, 3))


def _placed(box: Box, place: Any, size: tuple[int, int]) -> Box:
    """The upright rectangle around a box of the sheet on the picture, 0 to 1."""
    x0, y0, x1, y1 = box
    moved = place @ np.array([(x0, y0, 1), (x1, y0, 1), (x1, y1, 1), (x0, y1, 1)]).T
    x, y = moved[0] / moved[2] / size[0], moved[1] / moved[2] / size[1]
    return (float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def _record(truth: dict[str, Any]) -> Any:
    record: dict[str, Any] = {}
    for pointer, value in truth.items():
        at: Any = record
        parts = pointer[1:].split("/")
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            if following is None:
                at[part] = value
            elif isinstance(at, list):
                if int(part) == len(at):
                    at.append({})
                at = at[int(part)]
            else:
                at = at.setdefault(part, [] if following.isdigit() else {})
    return record


_TITLES = {
    "date": ("date", "invoiceDate", "billDate", "issueDate", "shippedOn", "signedOn"),
    "due": ("dueDate", "payableBy"),
    "born": ("dateOfBirth", "birthDate"),
    "total": ("total", "grandTotal", "amountDue", "fee"),
    "number": ("invoiceNumber", "billNumber", "documentNumber", "recordNumber"),
    "reference": ("paymentReference", "orderReference", "caseNumber"),
}


def _schema(value: Any, language: Language | None) -> dict[str, Any]:
    """The schema of a record. If a language is given, each field has the page's own word for it as its title."""
    if isinstance(value, dict):
        properties = {name: _schema(each, language) for name, each in value.items()}
        if language:
            titles = {name: label for label, names in _TITLES.items() for name in names}
            for name, each in properties.items():
                if title := language.labels.get(titles.get(name, name)):
                    each["title"] = title
        return {"type": "object", "properties": properties}
    if isinstance(value, list):
        return {"type": "array", "items": _schema(value[0], language)}
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    enum = {"enum": ["settled", "open", "private_person", "company"]} if value in ("settled", "private_person") else {}
    return {"type": kinds[type(value)], **enum}
