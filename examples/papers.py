"""Printed matter: till receipts, an invoice, an article and a shipping label."""

from __future__ import annotations

import camera
from camera import Point
from ink import BLACK, Pen, code, ean13, iban, wrap
from numpy.random import Generator, default_rng
from PIL import Image
from zxingcpp import BarcodeFormat

MONO, BOLD = "SansMono", "SansMono-Bold"


def till_receipt() -> Image.Image:
    """A clean grey scan of a supermarket receipt with a QR code."""
    rng = default_rng(1)
    page = camera.paper(rng, (760, 1480), (251, 250, 247), grain=1.2)
    pen = Pen(page, MONO, (38, 38, 44))
    middle, left, right = 380, 70, 690
    pen.text((middle, 104), "MARLOW & FINCH", 50, face="Sans-Bold", anchor="ms", spread=1)
    pen.text((middle, 142), "FOOD HALL", 25, face="Sans", anchor="ms", spread=9)
    for place, line in enumerate(("41 Quayside Row, Port Ellery XE3 8QT", "Tel 01632 960 417", "VAT No. 000 4821 93")):
        pen.text((middle, 192 + 31 * place), line, 22, anchor="ms")
    pen.text((left, 312), "14/03/2026  17:42", 24)
    pen.text((right, 312), "Till 07  Op 112", 24, anchor="rs")
    pen.dashes(left, right, 334)
    y = 380
    goods = (
        ("Sourdough loaf 800g", "3.45"),
        ("Semi-skimmed milk 2L", "1.95"),
        ("Free range eggs x12", "3.80"),
        ("Vine tomatoes", "2.31"),
        ("  0.772 kg @ £2.99/kg", ""),
        ("Mature cheddar 400g", "4.60"),
        ("Olive oil 500ml", "7.25"),
        ("Dark chocolate 70%", "2.20"),
        ("Dark chocolate 70%", "2.20"),
        ("  2 for £4.00 saving", "-0.40"),
        ("Carrier bag", "0.30"),
    )
    for name, price in goods:
        pen.row(y, [(left, "l", name), (right, "r", price)], 25)
        y += 37
    pen.dashes(left, right, y - 14)
    y += 34
    pen.row(y, [(left, "l", "TOTAL"), (right, "r", "£27.66")], 42, face=BOLD)
    for name, amount in (
        ("CARD CONTACTLESS", "27.66"),
        ("Card ending in 6038", ""),
        ("Auth code 518207", ""),
        ("CHANGE", "0.00"),
    ):
        y += 38
        pen.row(y, [(left, "l", name), (right, "r", amount)], 24)
    y += 30
    pen.dashes(left, right, y)
    y += 42
    pen.row(y, [(left, "l", "VAT rate"), (430, "r", "Net"), (560, "r", "VAT"), (right, "r", "Gross")], 22)
    for cells in (("A  0.0%", "23.36", "0.00", "23.36"), ("B 20.0%", "3.58", "0.72", "4.30")):
        y += 32
        pen.row(y, [(left, "l", cells[0]), (430, "r", cells[1]), (560, "r", cells[2]), (right, "r", cells[3])], 22)
    y += 38
    square = code(BarcodeFormat.QRCode, "https://receipts.marlowfinch.example/r/7F2K-90417-0314", module=6)
    pen.stamp(square, (middle - square.width / 2, y))
    y += square.height + 42
    pen.text((middle, y), "Receipt no. 7F2K-90417", 24, anchor="ms")
    pen.text((middle, y + 36), "Thank you for shopping local!", 24, anchor="ms")
    return camera.scan(page.crop((0, 0, 760, y + 84)), rng, turn=0.35, dirt=12, levels=52)


def _tavern_bill(rng: Generator) -> Image.Image:
    page = camera.paper(rng, (800, 1330), (247, 245, 238), grain=2)
    pen = Pen(page, MONO, (52, 50, 62))
    middle, left, right = 400, 62, 738
    pen.text((middle, 100), "Gasthaus Kupferhirsch", 47, face="SerifCondensed-Bold", anchor="ms")
    for place, line in enumerate(("Mühlgasse 12, 00417 Grünfelden", "Tel. 0000 / 55 21 09", "St.-Nr. 000/123/45678")):
        pen.text((middle, 150 + 34 * place), line, 25, anchor="ms")
    pen.dashes(left, right, 240)
    pen.row(286, [(left, "l", "Rechnung 20418"), (right, "r", "Tisch 9")], 29, face=BOLD)
    pen.row(326, [(left, "l", "07.02.2026 20:51"), (right, "r", "Bedienung: Jörg")], 26)
    pen.dashes(left, right, 350)
    y = 402
    dishes = (
        ("2", "Kürbissuppe", "13,80"),
        ("1", "Zwiebelrostbraten", "24,50"),
        ("1", "Käsespätzle", "14,90"),
        ("2", "Apfelschorle 0,5l", "8,40"),
        ("1", "Weißbier 0,5l", "4,90"),
        ("2", "Kaiserschmarrn", "19,00"),
        ("2", "Espresso", "5,60"),
    )
    for count, dish, price in dishes:
        pen.row(y, [(left, "l", f"{count} x"), (left + 84, "l", dish), (right, "r", price)], 29)
        y += 46
    pen.dashes(left, right, y - 18)
    pen.row(y + 40, [(left, "l", "SUMME EUR"), (right, "r", "91,10")], 46, face=BOLD)
    for place, cells in enumerate(
        (("Netto", "83,36"), ("MwSt 7%", "4,72"), ("MwSt 19%", "3,02"), ("Bar gegeben", "100,00"), ("Rückgeld", "8,90"))
    ):
        pen.row(y + 96 + 40 * place, [(left, "l", cells[0]), (right, "r", cells[1])], 27)
    y += 96 + 40 * 5
    pen.dashes(left, right, y - 14)
    pen.text((middle, y + 34), "Vielen Dank für Ihren Besuch!", 28, anchor="ms")
    pen.text((middle, y + 76), "TSE-Signatur 8c41f0d27be95a", 22, anchor="ms")
    return page.crop((0, 0, 800, y + 128))


def crumpled_receipt() -> Image.Image:
    """A phone picture of a German restaurant bill that was in a pocket, on a wooden table, under a lamp."""
    rng = default_rng(22)
    size = (1200, 1600)
    bill = _tavern_bill(rng)
    framed = Image.new("RGBA", (bill.width + 60, bill.height + 60), (0, 0, 0, 0))
    framed.paste(bill, (30, 30))
    creased = camera.crumple(framed, rng, folds=26, depth=0.36, bend=5)
    table = camera.wood(rng, size, (128, 84, 52))
    quad: tuple[Point, Point, Point, Point] = ((236, 96), (1012, 176), (952, 1508), (110, 1392))
    scene = camera.lay(table, creased, quad, shadow=((12, 16), 14, 0.75))
    light = camera.lamp(size, (0.78, 0.22), bright=1.1, dark=0.5, reach=1.05)
    light *= camera.shade(size, [(-50, 1700), (-50, 900), (300, 1150), (620, 1700)], blur=60, darkness=0.4)
    return camera.expose(camera.relight(scene, light), rng, blur=0.8, noise=4, tint=(1.04, 1, 0.9))


INVOICE_LINES = (
    ("AP-2200", "Aspheric lens 22 mm, AR coated", 12, 41.50),
    ("BX-0410", "Beam expander 4-10x, anodised", 2, 389.00),
    ("FM-0075", "Front surface mirror 75 mm", 6, 58.20),
    ("MT-1150", "Kinematic mount, M6 thread", 8, 96.75),
    ("CL-0009", "Lens cleaning set", 3, 17.90),
    ("SV-CAL1", "Calibration and test report", 1, 240.00),
)


def invoice() -> Image.Image:
    """An A4 invoice, scanned at 200 dots an inch to black and white, a little askew."""
    rng = default_rng(3)
    page = Image.new("RGB", (1654, 2339), (252, 252, 252))
    pen = Pen(page, "Sans")
    left, right = 150, 1504
    pen.draw.ellipse((left, 130, left + 92, 222), outline=BLACK, width=9)
    pen.draw.ellipse((left + 46, 130, left + 138, 222), outline=BLACK, width=9)
    pen.text((left + 164, 194), "Lindqvist Optik GmbH", 50, face="Sans-Bold")
    pen.text((left + 166, 232), "Precision optics since 1968", 24)
    for place, line in enumerate(
        ("Hafenstraße 88", "00241 Brückstedt, Germany", "billing@lindqvist-optik.example", "VAT ID DE000417296")
    ):
        pen.text((right, 156 + 34 * place), line, 24, anchor="rs")
    pen.rule((left, 300, right, 300), width=4)
    pen.text((left, 372), "Bill to", 22, face="Sans-Bold")
    for place, line in enumerate(
        ("Calder Vale Instruments Ltd", "Accounts Payable", "Unit 6, Tannery Yard", "Hexworth HX9 4TD", "United Kingdom")
    ):
        pen.text((left, 412 + 36 * place), line, 27)
    pen.text((right, 390), "INVOICE", 62, face="Sans-Bold", anchor="rs", spread=4)
    facts = (
        ("Invoice no.", "RE-2026-01873"),
        ("Invoice date", "19 January 2026"),
        ("Your order", "PO 77-3150"),
        ("Due date", "18 February 2026"),
    )
    for place, (name, value) in enumerate(facts):
        pen.row(444 + 40 * place, [(1000, "l", name), (right, "r", value)], 26)
    top = 700
    columns = ((170, "l"), (370, "l"), (1070, "r"), (1280, "r"), (1484, "r"))
    pen.draw.rectangle((left, top, right, top + 56), fill=(30, 30, 30))
    heads = ("Item", "Description", "Qty", "Unit price", "Amount EUR")
    pen.row(
        top + 38,
        [(x, side, head) for (x, side), head in zip(columns, heads, strict=True)],
        24,
        face="Sans-Bold",
        colour=(255, 255, 255),
    )
    y = top + 56
    net = 0.0
    for item, words, count, price in INVOICE_LINES:
        cells = (item, words, str(count), f"{price:,.2f}", f"{count * price:,.2f}")
        pen.row(y + 42, [(x, side, cell) for (x, side), cell in zip(columns, cells, strict=True)], 26)
        y += 62
        net += count * price
        pen.rule((left, y, right, y), width=1)
    for x in (left, 350, 990, 1090, 1300, right):
        pen.rule((x, top, x, y), width=2)
    vat = round(net * 0.19, 2)
    for place, (name, amount) in enumerate((("Subtotal", net), ("VAT 19 %", vat))):
        pen.row(y + 64 + 44 * place, [(1100, "l", name), (1484, "r", f"{amount:,.2f}")], 27)
    pen.draw.rectangle((1080, y + 136, right, y + 204), outline=BLACK, width=4)
    pen.row(y + 182, [(1100, "l", "Total EUR"), (1484, "r", f"{net + vat:,.2f}")], 32, face="Sans-Bold")
    y += 300
    pen.text((left, y), "Payment", 28, face="Sans-Bold")
    account = (
        ("Bank", "Sparbank Brückstedt"),
        ("IBAN", iban("DE", "000205000041729600")),
        ("BIC", "SPBKDEX0XXX"),
        ("Reference", "RE-2026-01873"),
    )
    for place, (name, value) in enumerate(account):
        pen.row(y + 46 + 42 * place, [(left, "l", name), (left + 200, "l", value)], 27)
    terms = (
        "Please pay within 30 days without deduction. Goods remain our property until paid in full. "
        "Returns need an RMA number, which our service desk gives on request."
    )
    for place, line in enumerate(wrap(terms, "Serif", 24, right - left)):
        pen.text((left, y + 262 + 34 * place), line, 24, face="Serif")
    mark = Image.new("RGBA", (470, 190), (0, 0, 0, 0))
    stamp = Pen(mark, "Sans-Bold", (40, 40, 40))
    stamp.draw.rounded_rectangle((4, 4, 465, 185), 18, outline=(40, 40, 40), width=7)
    stamp.text((235, 74), "RECEIVED", 50, anchor="ms", spread=5)
    stamp.text((235, 150), "23 JAN 2026", 50, anchor="ms", spread=2)
    mark = mark.rotate(7, Image.Resampling.BICUBIC, expand=True)
    page.paste(mark, (900, 1800), mark)
    bars = code(BarcodeFormat.Code128, "RE-2026-01873", module=3, height=110)
    pen.stamp(bars, (left, 2040))
    pen.text((left + bars.width / 2, 2182), "RE-2026-01873", 23, face=MONO, anchor="ms")
    pen.text((right, 2150), "Managing director: Ingrid Lindqvist", 21, anchor="rs")
    pen.text((right, 2182), "Brückstedt Local Court HRB 00417   ·   Page 1 of 1", 21, anchor="rs")
    grey = camera.scan(page, rng, turn=-0.45, dirt=170)
    rough = camera.pixels(grey) + 16 * camera.cloud(rng, grey.size, 2.5)
    return camera.picture(rough).point(lambda value: 255 if value > 150 else 0).convert("1")


ARTICLE = (
    (
        (
            "For ninety years the lamp on Skerry Point was lit by hand. Every evening a keeper climbed the 164 steps, trimmed the "
            "wick and wound the clockwork that turned the lens. The weight had to be raised again every forty minutes until dawn."
        ),
        (
            "When the light was made automatic in 1987 the clockwork was packed into eleven crates and forgotten. It was found "
            "last autumn in the cellar of the old customs house, dry and almost complete. Only the governor was missing."
        ),
        (
            "A group of volunteers led by the watchmaker Edith Carrow spent the winter cleaning the brass. “We counted 212 parts,” "
            "she says. “Nine of them we had to make ourselves, from drawings that the museum in Tarvik still keeps.”"
        ),
    ),
    (
        (
            "The lens itself is a second-order Fresnel made in 1896. It weighs 1,450 kilograms and floats in a trough of mercury, so "
            "that a child could turn it with one finger. For safety the mercury will now be replaced by a ring of ball bearings."
        ),
        (
            "Whether the old machine will ever turn the light again is for the harbour board to decide. It meets on 21 May. The "
            "repair has cost £38,600 so far, two thirds of it given by readers of this newspaper."
        ),
        (
            "Visitors can see the clockwork at work from 6 June, on Saturdays between 11 and 4. Tickets cost £4.50, children under "
            "twelve go free. Sturdy shoes are advised: there is no lift."
        ),
        "A model of the machine, one eighth of its size, stands in the window of the library in Fore Street until the autumn.",
    ),
)


def article() -> Image.Image:
    """A page of a local paper in two columns, scanned grey: its reading order is down, then across."""
    rng = default_rng(10)
    page = camera.paper(rng, (1300, 1700), (240, 238, 230), grain=2.2)
    pen = Pen(page, "Serif", (34, 33, 36))
    left, right, gap = 96, 1204, 52
    column = (right - left - gap) / 2
    pen.row(84, [(left, "l", "Friday 24 April 2026"), (right, "r", "Page 7")], 21, face="Serif-Italic")
    pen.text((650, 92), "THE ELLERY HERALD", 34, face="Serif-Bold", anchor="ms", spread=3)
    pen.rule((left, 112, right, 112), width=5)
    pen.rule((left, 121, right, 121), width=1)
    pen.text((left, 206), "Lighthouse clockwork", 73, face="Serif-Bold")
    pen.text((left, 286), "ticks again after 39 years", 73, face="Serif-Bold")
    pen.text((left, 344), "Volunteers rebuild the machine that once turned the lamp on Skerry Point", 27, face="Serif-Italic")
    pen.text((left, 396), "By Tom Arkwright", 22, face="Sans-Bold")
    pen.rule((left, 416, right, 416), width=1)
    pen.rule((650, 440, 650, 1610), (120, 118, 114), 1)
    for place, paragraphs in enumerate(ARTICLE):
        x, y = left + place * (column + gap), 468.0
        for number, words in enumerate(paragraphs):
            if number == 2 and place == 0:
                y = _sketch(pen, x, y, column)
            for line in wrap(words, "Serif", 25.5, column):
                pen.text((x, y), line, 25.5)
                y += 36
            y += 20
        if place:
            y += 6
            pen.draw.rectangle((x, y - 20, x + column, y + 108), outline=(34, 33, 36), width=2)
            pen.text((x + 22, y + 26), "Open days 2026", 27, face="Sans-Bold")
            pen.text((x + 22, y + 60), "6 June to 26 September", 22, face="Sans")
            pen.text((x + 22, y + 90), "Harbour office: 01632 960 552", 22, face="Sans")
            pen.draw.rectangle((x, y + 134, x + column, y + 262), fill=(214, 212, 204))
            pen.text((x + column / 2, y + 182), "Fore Street Bakery", 32, face="Serif-BoldItalic", anchor="ms")
            pen.text((x + column / 2, y + 222), "Warm rolls from 6 in the morning", 22, anchor="ms")
    light = camera.lamp(page.size, (0.62, 0.5), bright=1.02, dark=0.82, reach=1.1)
    gutter = camera.shade(page.size, [(-40, -40), (14, -40), (14, 1740), (-40, 1740)], blur=26, darkness=0.5)
    return camera.scan(camera.relight(page, light * gutter), rng, turn=0.5, dirt=40, levels=52)


def _sketch(pen: Pen, x: float, y: float, width: float) -> float:
    """A line drawing of the lighthouse; gives the base line under it."""
    top, height = y - 18, 300
    draw, tone = pen.draw, (70, 69, 72)
    draw.rectangle((x, top, x + width, top + height), fill=(222, 220, 212))
    sea, middle = top + 232, x + width * 0.62
    for line in range(9):
        reach = 40 + 12 * line
        draw.line((x + 12 * (line % 3), sea + 8 * line, x + width - reach % 37, sea + 8 * line), fill=(150, 149, 146), width=2)
    draw.polygon([(middle, top + 66), (x, top + 18), (x, top + 76)], fill=(244, 243, 236))
    draw.polygon([(middle, top + 66), (x + width, top + 34), (x + width, top + 84)], fill=(244, 243, 236))
    rock = [
        (middle - 120, sea + 34),
        (middle - 84, sea - 8),
        (middle - 30, sea - 22),
        (middle + 46, sea - 16),
        (middle + 110, sea + 34),
    ]
    draw.polygon(rock, fill=(96, 95, 96))
    draw.polygon(
        [(middle - 36, sea - 14), (middle - 22, top + 86), (middle + 22, top + 86), (middle + 36, sea - 14)],
        fill=(250, 249, 244),
        outline=tone,
        width=2,
    )
    for low, high in ((0.12, 0.34), (0.56, 0.78)):
        foot, head = sea - 14 - low * 132, sea - 14 - high * 132
        draw.polygon(
            [
                (middle - 36 + 14 * low, foot),
                (middle - 36 + 14 * high, head),
                (middle + 36 - 14 * high, head),
                (middle + 36 - 14 * low, foot),
            ],
            fill=tone,
        )
    draw.rectangle((middle - 30, top + 80, middle + 30, top + 88), fill=tone)
    draw.rectangle((middle - 16, top + 50, middle + 16, top + 80), fill=(255, 255, 250), outline=tone, width=3)
    draw.polygon([(middle - 22, top + 50), (middle, top + 26), (middle + 22, top + 50)], fill=tone)
    pen.text((x, top + height + 26), "The light on Skerry Point, drawn in 1896", 19, face="Sans-Oblique")
    return top + height + 74


def shipping_label() -> Image.Image:
    """A carrier's label as its print service gives it: black on white, with a tracking bar code and a QR code."""
    label = Image.new("L", (1000, 1500), 255)
    pen = Pen(label.convert("RGB"), "Sans")
    draw = pen.draw
    draw.rectangle((20, 20, 980, 1480), outline=BLACK, width=5)
    draw.rectangle((20, 20, 980, 150), fill=BLACK)
    draw.polygon([(60, 118), (104, 52), (136, 52), (92, 118)], fill=(255, 255, 255))
    draw.polygon([(112, 118), (156, 52), (188, 52), (144, 118)], fill=(255, 255, 255))
    pen.text((214, 108), "SWIFTMOOR", 62, face="Sans-Bold", colour=(255, 255, 255))
    pen.text((940, 78), "PARCEL EXPRESS", 26, face="Sans-Bold", colour=(255, 255, 255), anchor="rs")
    pen.text((940, 118), "Next day by 12:00", 26, colour=(255, 255, 255), anchor="rs")
    pen.text((50, 194), "FROM", 20, face="Sans-Bold")
    for place, line in enumerate(("Bramble & Thread Ltd", "Mill Lane 3, Ashcombe AC4 7LN", "United Kingdom")):
        pen.text((50, 230 + 34 * place), line, 26)
    pen.rule((640, 150, 640, 330), width=4)
    pen.text((670, 194), "DATE", 20, face="Sans-Bold")
    pen.text((670, 230), "2026-05-11", 28)
    pen.text((670, 272), "WEIGHT", 20, face="Sans-Bold")
    pen.text((670, 308), "4.35 kg", 28)
    pen.rule((20, 330, 980, 330), width=4)
    pen.text((50, 376), "SHIP TO", 22, face="Sans-Bold")
    pen.text((50, 440), "Élodie Marchetaux", 48, face="Sans-Bold")
    for place, line in enumerate(("Atelier du Pont-Neuf", "27 bis, rue des Tilleuls", "99310 SAINT-ORVAL")):
        pen.text((50, 498 + 54 * place), line, 42)
    pen.text((50, 664), "FRANCE", 46, face="Sans-Bold")
    square = code(BarcodeFormat.QRCode, "SWM|1|SM482600917355FR|99310|FR|4.35|1/2", module=8)
    pen.stamp(square, (930 - square.width, 370))
    pen.rule((20, 700, 980, 700), width=4)
    pen.text((50, 836), "FR2", 132, face="Sans-Bold")
    pen.text((360, 784), "ROUTE", 20, face="Sans-Bold")
    pen.text((360, 836), "ORV 93-04", 46, face="Sans-Bold")
    pen.text((700, 784), "PIECE", 20, face="Sans-Bold")
    pen.text((700, 836), "1 of 2", 46, face="Sans-Bold")
    pen.rule((20, 880, 980, 880), width=10)
    bars = code(BarcodeFormat.Code128, "SM482600917355FR", module=4, height=230)
    pen.stamp(bars, (500 - bars.width / 2, 920))
    pen.text((500, 1206), "SM 4826 0091 7355 FR", 42, face=BOLD, anchor="ms")
    pen.rule((20, 1236, 980, 1236), width=4)
    pen.text((50, 1280), "Contents: linen cloth, 6 m; sewing patterns", 25)
    pen.text((50, 1322), "Customs value: GBP 184.00   Origin: GB", 25)
    pen.text((50, 1364), "Ref: ORDER 60518", 25)
    inner = code(BarcodeFormat.EAN13, ean13("200060518001"), module=3, height=84)
    pen.stamp(inner, (930 - inner.width, 1316))
    pen.text((930 - inner.width / 2, 1428), ean13("200060518001"), 24, face=MONO, anchor="ms")
    pen.text((50, 1440), "Sign on delivery. Leave no card.", 25, face="Sans-Bold")
    return pen.image.convert("L").quantize(16)
