"""What was never on paper: an application's window, a page of a web catalogue and an animated banner."""

from __future__ import annotations

import math

import camera
from ink import DASH, WHITE, Colour, Pen, font
from numpy.random import default_rng
from PIL import Image, ImageDraw, ImageFilter

INK: Colour = (33, 37, 45)
MUTED: Colour = (104, 112, 126)
LINE: Colour = (222, 226, 232)
BLUE: Colour = (36, 94, 200)

ORDERS = (
    ("SO-10482", "Northgate Dental Practice", "12 May 2026", "Shipped", "€1,284.00"),
    ("SO-10483", "Café Lindenblüte", "12 May 2026", "Packing", "€318.40"),
    ("SO-10484", "Pemberton & Daughters", "12 May 2026", "On hold", "£2,960.75"),
    ("SO-10485", "Studio Vérité", "13 May 2026", "Paid", "€742.10"),
    ("SO-10486", "Harbour Lights Hotel", "13 May 2026", "Shipped", "£5,118.00"),
    ("SO-10487", "Müller Fahrradwerkstatt", "13 May 2026", "Paid", "€96.95"),
    ("SO-10488", "Zvonar Tools s.r.o.", "14 May 2026", "Cancelled", "€430.00"),
    ("SO-10489", "Greenfield Primary School", "14 May 2026", "Packing", "£684.30"),
    ("SO-10490", "Rossi Ceramiche", "14 May 2026", "Shipped", "€1,077.65"),
    ("SO-10491", "Tidewater Brewing Co.", "15 May 2026", "Paid", "£3,205.00"),
)
CHIPS: dict[str, tuple[Colour, Colour]] = {
    "Shipped": ((219, 234, 254), (29, 78, 176)),
    "Packing": ((254, 240, 199), (146, 84, 6)),
    "On hold": ((253, 225, 225), (168, 30, 30)),
    "Paid": ((215, 244, 224), (20, 108, 54)),
    "Cancelled": ((231, 233, 237), (82, 88, 99)),
}


def order_screen() -> Image.Image:
    """A screenshot of an order desk: title bar, menus, side bar, filter, table, status line."""
    screen = Image.new("RGB", (1440, 900), (246, 247, 249))
    pen = Pen(screen, "Sans", INK)
    draw = pen.draw
    draw.rectangle((0, 0, 1440, 38), fill=(44, 50, 64))
    pen.text((720, 25), f"Ledgerly Order Desk {DASH} Northern Region", 15, colour=(230, 233, 240), anchor="ms")
    for place, colour in enumerate(((237, 106, 94), (245, 191, 79), (98, 197, 84))):
        draw.ellipse((16 + 24 * place, 12, 30 + 24 * place, 26), fill=colour)
    draw.rectangle((0, 38, 1440, 68), fill=WHITE)
    x = 16.0
    for menu in ("File", "Edit", "View", "Orders", "Customers", "Reports", "Help"):
        pen.text((x, 58), menu, 14)
        x += font("Sans", 14).getlength(menu) + 28
    pen.rule((0, 68, 1440, 68), LINE, 1)
    _side_bar(pen)
    pen.text((252, 116), "Sales orders", 26, face="Sans-Bold")
    pen.text((252, 140), "10 of 1,347 orders", 14, colour=MUTED)
    draw.rounded_rectangle((946, 94, 1240, 130), 6, fill=WHITE, outline=LINE)
    draw.ellipse((960, 104, 973, 117), outline=MUTED, width=2)
    draw.line((971, 115, 977, 121), fill=MUTED, width=2)
    pen.text((988, 118), "Search customer or number", 14, colour=MUTED)
    draw.rounded_rectangle((1256, 94, 1412, 130), 6, fill=BLUE)
    pen.text((1334, 118), "+  New order", 14, face="Sans-Bold", colour=WHITE, anchor="ms")
    draw.rounded_rectangle((252, 160, 1412, 748), 8, fill=WHITE, outline=LINE)
    columns = ((304, "l"), (446, "l"), (820, "l"), (990, "l"), (1386, "r"))
    heads = ("Order", "Customer", "Date", "Status", "Total")
    draw.rectangle((253, 170, 1411, 204), fill=(241, 243, 247))
    pen.row(192, [(x, side, head) for (x, side), head in zip(columns, heads, strict=True)], 13, face="Sans-Bold", colour=MUTED)
    for place, order in enumerate(ORDERS):
        y = 204 + 54 * place
        if place == 2:
            draw.rectangle((253, y + 1, 1411, y + 53), fill=(232, 240, 254))
            draw.rectangle((253, y + 1, 256, y + 53), fill=BLUE)
        draw.rounded_rectangle((270, y + 19, 286, y + 35), 3, fill=BLUE if place == 2 else WHITE, outline=(170, 177, 189))
        if place == 2:
            draw.line((273, y + 27, 277, y + 31, 283, y + 23), fill=WHITE, width=2)
        number, customer, date, status, total = order
        pen.text((304, y + 33), number, 15, colour=BLUE)
        pen.text((446, y + 33), customer, 15)
        pen.text((820, y + 33), date, 15)
        pen.text((1386, y + 33), total, 15, face="Sans-Bold", anchor="rs")
        fill, ink = CHIPS[status]
        draw.rounded_rectangle((982, y + 13, 1082, y + 41), 14, fill=fill)
        pen.text((1032, y + 32), status, 13, face="Sans-Bold", colour=ink, anchor="ms")
        if place:
            pen.rule((253, y, 1411, y), LINE, 1)
    for place, (name, value) in enumerate(
        (("Open value", "€3,519.10 + £11,968.05"), ("Orders on hold", "1"), ("Average lead time", "2.6 days"))
    ):
        left = 252 + 394 * place
        draw.rounded_rectangle((left, 764, left + 372, 846), 8, fill=WHITE, outline=LINE)
        pen.text((left + 20, 792), name, 13, colour=MUTED)
        pen.text((left + 20, 826), value, 22, face="Sans-Bold")
    draw.rectangle((0, 870, 1440, 900), fill=(236, 239, 243))
    pen.text((16, 890), "Connected to ledger-03    Last sync 15 May 2026 09:42", 13, colour=MUTED)
    pen.text((1424, 890), "Signed in as hannah.weiss", 13, colour=MUTED, anchor="rs")
    draw.polygon(
        [(782, 352), (782, 374), (787, 369), (791, 378), (795, 376), (791, 368), (798, 368)], fill=(20, 20, 20), outline=WHITE
    )
    return screen


def _side_bar(pen: Pen) -> None:
    draw = pen.draw
    draw.rectangle((0, 69, 220, 870), fill=(250, 251, 252))
    pen.rule((220, 69, 220, 870), LINE, 1)
    entries = (
        ("Dashboard", ""),
        ("Sales orders", "1,347"),
        ("Quotes", "28"),
        ("Returns", "6"),
        ("Stock", ""),
        ("Price lists", ""),
    )
    for place, (entry, count) in enumerate(entries):
        y = 90 + 46 * place
        chosen = entry == "Sales orders"
        if chosen:
            draw.rounded_rectangle((10, y, 210, y + 38), 6, fill=(225, 235, 252))
        draw.rounded_rectangle((24, y + 11, 40, y + 27), 4, outline=BLUE if chosen else MUTED, width=2)
        pen.text((52, y + 25), entry, 15, colour=BLUE if chosen else INK)
        pen.text((198, y + 25), count, 13, colour=MUTED, anchor="rs")
    pen.text((24, 410), "SAVED FILTERS", 12, face="Sans-Bold", colour=MUTED)
    for place, name in enumerate(("Due this week", "Unpaid over 30 days", "Export customers")):
        pen.text((24, 440 + 32 * place), name, 14)


def _soft(size: tuple[int, int], inner: Colour, outer: Colour) -> Image.Image:
    light = camera.lamp(size, (0.45, 0.4), bright=1, dark=0, reach=0.75)
    first, last = Image.new("RGB", size, inner), Image.new("RGB", size, outer)
    return Image.composite(first, last, camera.picture(light * 255))


def _lamp(kind: int, colour: Colour) -> Image.Image:
    """A studio picture of one lamp, 300 x 290 pixels, drawn at three times that."""
    size = (900, 870)
    photo = _soft(size, (250, 248, 244), (214, 208, 200))
    floor = Image.new("L", size, 0)
    ImageDraw.Draw(floor).ellipse((270, 740, 690, 812), fill=150)
    photo.paste((90, 80, 72), mask=floor.filter(ImageFilter.GaussianBlur(22)))
    form = Image.new("L", size, 0)
    draw = ImageDraw.Draw(form)
    if kind == 0:  # a table lamp with a cone
        draw.polygon([(310, 420), (390, 140), (510, 140), (590, 420)], fill=255)
        draw.rectangle((438, 420, 462, 740), fill=200)
        draw.rounded_rectangle((340, 730, 560, 770), 18, fill=230)
    elif kind == 1:  # a desk lamp with an arm
        draw.line((330, 750, 440, 470, 600, 270), fill=200, width=20)
        draw.polygon([(540, 210), (640, 190), (730, 420), (500, 400)], fill=255)
        draw.ellipse((420, 450, 460, 490), fill=230)
        draw.rounded_rectangle((230, 735, 440, 772), 18, fill=230)
    elif kind == 2:  # a globe
        draw.ellipse((270, 180, 630, 540), fill=255)
        draw.polygon([(390, 530), (510, 530), (560, 770), (340, 770)], fill=205)
    elif kind == 3:  # a pendant
        draw.rectangle((446, 0, 454, 240), fill=160)
        draw.pieslice((230, 230, 670, 790), 180, 360, fill=255)
        draw.ellipse((390, 470, 510, 560), fill=215)
    elif kind == 4:  # a lantern
        draw.arc((350, 130, 550, 350), 180, 360, fill=200, width=14)
        draw.rounded_rectangle((320, 240, 580, 300), 20, fill=230)
        draw.rounded_rectangle((340, 290, 560, 700), 30, fill=255)
        draw.rounded_rectangle((310, 690, 590, 770), 20, fill=230)
    else:  # a floor lamp
        draw.polygon([(330, 250), (380, 70), (520, 70), (570, 250)], fill=255)
        for foot in (290, 450, 610):
            draw.line((450, 250, foot, 775), fill=200, width=15)
    body = camera.pixels(Image.new("RGB", size, colour))
    tone = camera.pixels(form.filter(ImageFilter.GaussianBlur(34)))[..., None] / 255
    across = (1.16 - 0.42 * camera.pixels(Image.linear_gradient("L").rotate(90).resize(size))[..., None] / 255).astype("float32")
    photo.paste(
        camera.picture(body * (0.55 + 0.5 * tone) * across),
        mask=form.filter(ImageFilter.GaussianBlur(1.2)).point(lambda value: min(255, value * 5 // 4)),
    )
    glow = camera.lamp(size, (0.5, 0.38), bright=1.16, dark=1, reach=0.3)
    return camera.relight(photo, glow).resize((300, 290), Image.Resampling.LANCZOS)


LAMPS: tuple[tuple[str, str, str, str, Colour], ...] = (
    ("Nordlicht table lamp", "Art. 40-1182", "€79.90", "", (196, 88, 60)),
    ("Kranich desk lamp", "Art. 40-2260", "€129.00", "", (52, 72, 88)),
    ("Perle globe lamp", "Art. 40-3015", "€54.50", "€69.50", (226, 200, 160)),
    ("Atelier pendant", "Art. 41-0047", "€148.00", "", (72, 104, 84)),
    ("Hafen lantern", "Art. 41-0930", "€36.95", "€45.00", (176, 128, 64)),
    ("Birke floor lamp", "Art. 42-5508", "€215.00", "", (158, 134, 108)),
)


def catalogue_page() -> Image.Image:
    """A page of a lamp catalogue: six products, two of them reduced."""
    rng = default_rng(8)
    page = camera.paper(rng, (1100, 1500), (252, 250, 246), grain=0.7)
    pen = Pen(page, "Sans", (48, 42, 38))
    banner = _soft((1100, 210), (206, 116, 72), (120, 54, 40))
    pen.stamp(banner, (0, 0))
    pen.text((60, 104), "Lumen & Loft", 64, face="Serif-Bold", colour=(255, 246, 232))
    pen.text((62, 158), "Autumn catalogue 2026  ·  Lamps for quiet evenings", 27, colour=(252, 226, 200))
    pen.text((1040, 158), "Page 18", 24, colour=(252, 226, 200), anchor="rs")
    for place, (name, article, price, before, colour) in enumerate(LAMPS):
        left, top = 60 + 340 * (place % 3), 256 + 556 * (place // 3)
        pen.draw.rounded_rectangle((left - 1, top - 1, left + 301, top + 291), 4, outline=(214, 206, 196), width=2)
        pen.stamp(_lamp(place, colour), (left, top))
        pen.text((left, top + 336), name, 26, face="SansCondensed-Bold")
        pen.text((left, top + 370), article, 20, colour=(120, 110, 102))
        pen.text((left, top + 402), ("E27, max. 40 W", "LED 9 W, dimmable", "E14, max. 25 W")[place % 3], 20)
        reduced = (184, 36, 36)
        pen.text((left, top + 458), price, 42, face="Sans-Bold", colour=reduced if before else None)
        if before:
            pen.text((left + 196, top + 456), before, 22, colour=(120, 110, 102))
            length = font("Sans", 22).getlength(before)
            pen.rule((left + 192, top + 449, left + 200 + length, top + 447), reduced)
            pen.draw.ellipse((left + 218, top + 14, left + 286, top + 82), fill=reduced)
            saved = 1 - float(price[1:]) / float(before[1:])
            pen.text(
                (left + 252, top + 57), f"-{math.floor(100 * saved)}%", 23, face="SansCondensed-Bold", colour=WHITE, anchor="ms"
            )
    pen.rule((60, 1392, 1040, 1392), (200, 190, 178))
    pen.text((60, 1432), "Free delivery from €100. Prices include VAT and hold until 30 November 2026.", 21)
    pen.text((60, 1466), "Order line 0000 4471 200  ·  www.lumen-loft.example", 21, colour=(120, 110, 102))
    return page


def _sea(width: int, height: int) -> Image.Image:
    """Evening sky over water, with a ferry, 0.62 of the way down."""
    rows = Image.linear_gradient("L").resize((width, height))
    sky = Image.composite(
        Image.new("RGB", (width, height), (250, 176, 110)), Image.new("RGB", (width, height), (34, 58, 116)), rows
    )
    draw = ImageDraw.Draw(sky)
    line = int(height * 0.72)
    draw.rectangle((0, line, width, height), fill=(22, 66, 96))
    for place in range(60):
        x, y = (place * 197) % width, line + 6 + (place * 53) % (height - line)
        draw.line((x, y, x + 18 + place % 5 * 9, y), fill=(64, 118, 146), width=2)
    left, deck = width - 300, line + 16
    draw.polygon([(left, deck - 34), (left + 260, deck - 34), (left + 236, deck), (left + 26, deck)], fill=(240, 242, 244))
    draw.rectangle((left + 34, deck - 66, left + 220, deck - 34), fill=(250, 250, 250))
    draw.rectangle((left + 70, deck - 90, left + 176, deck - 66), fill=(236, 238, 240))
    draw.rectangle((left + 130, deck - 116, left + 158, deck - 90), fill=(200, 52, 44))
    for place in range(9):
        draw.rectangle((left + 46 + 19 * place, deck - 56, left + 56 + 19 * place, deck - 46), fill=(40, 70, 110))
    draw.line((left + 14, deck - 16, left + 246, deck - 16), fill=(200, 52, 44), width=5)
    return sky


def ferry_banner() -> list[Image.Image]:
    """The three frames of an animated advertisement; only the first shows the offer."""
    messages = (
        ("Summer crossings from £19", "Book by 31 May with code TIDE26"),
        ("Four sailings a day", f"Brenholm {DASH} Port Ellery in 3 h 40 min"),
        ("Cars, bikes and dogs welcome", "www.nordkai-ferries.example"),
    )
    frames = []
    for place, (first, second) in enumerate(messages):
        frame = _sea(1000, 360)
        pen = Pen(frame, "Sans-Bold", WHITE)
        pen.draw.rounded_rectangle((36, 30, 330, 78), 8, fill=(200, 52, 44))
        pen.text((183, 65), "NORDKAI FERRIES", 27, anchor="ms")
        for shift, colour in ((3, (16, 30, 62)), (0, WHITE)):
            pen.text((36 + shift, 150 + shift), first, 50, face="Sans-Bold", colour=colour)
            pen.text((36 + shift, 206 + shift), second, 30, face="Sans", colour=colour)
        for dot in range(3):
            pen.draw.ellipse((36 + 26 * dot, 322, 50 + 26 * dot, 336), fill=WHITE if dot == place else (110, 140, 160))
        frames.append(frame.quantize(96, dither=Image.Dither.FLOYDSTEINBERG))
    return frames
