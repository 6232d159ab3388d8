"""What a phone sees: a shop shelf, a menu board, a business card and a sign on a wall."""

from __future__ import annotations

import camera
import numpy as np
from ink import DASH, WHITE, Colour, Pen, code, ean13, font
from numpy.random import Generator, default_rng
from PIL import Image, ImageDraw, ImageFilter
from zxingcpp import BarcodeFormat

#: Shape, colours of packet and label, name on the packet in two lines, size, price, the first 12 digits of the EAN.
GOODS: tuple[tuple[str, Colour, Colour, tuple[str, str], str, str, str], ...] = (
    ("box", (214, 92, 44), (255, 244, 220), ("HOLLIN", "OATS"), "500 g", "£1.85", "220041270118"),
    ("box", (58, 116, 84), (250, 232, 160), ("MAPLE", "CRUNCH"), "375 g", "£3.20", "220041270125"),
    ("jar", (196, 124, 22), (255, 250, 236), ("WILD", "HONEY"), "340 g", "£5.40", "220093310047"),
    ("jar", (96, 26, 56), (246, 236, 240), ("PLUM", "JAM"), "370 g", "£2.95", "220093310061"),
    ("can", (40, 122, 62), (244, 250, 236), ("GARDEN", "PEAS"), "400 g", "£0.89", "220052817731"),
    ("can", (190, 40, 34), (255, 246, 230), ("TOMATO", "SOUP"), "400 g", "£1.35", "220052817748"),
    ("bottle", (92, 108, 30), (250, 246, 226), ("OLIVE", "OIL"), "750 ml", "£8.75", "220071164209"),
    ("bottle", (110, 48, 24), (252, 240, 222), ("CIDER", "VINEGAR"), "500 ml", "£2.60", "220071164216"),
)


def _outline(shape: str, size: tuple[int, int]) -> Image.Image:
    width, height = size
    mask = Image.new("L", size, 0)
    draw = ImageDraw.Draw(mask)
    if shape == "box":
        draw.rounded_rectangle((0, 0, width - 1, height - 1), 4, fill=255)
    elif shape == "jar":
        draw.rounded_rectangle((width * 0.07, 0, width * 0.93, height * 0.2), 10, fill=255)
        draw.rounded_rectangle((0, height * 0.17, width - 1, height - 1), 34, fill=255)
    elif shape == "can":
        draw.rounded_rectangle((0, 0, width - 1, height - 1), 12, fill=255)
    else:
        draw.rectangle((width * 0.34, 0, width * 0.66, height * 0.4), fill=255)
        draw.ellipse((0, height * 0.26, width - 1, height * 0.56), fill=255)
        draw.rounded_rectangle((0, height * 0.4, width - 1, height - 1), 14, fill=255)
    return mask


def _packet(good: tuple[str, Colour, Colour, tuple[str, str], str, str, str]) -> Image.Image:
    """One packet seen from the front, RGBA."""
    shape, colour, label, (first, second), weight, _, _ = good
    size = {"box": (298, 456), "jar": (196, 300), "can": (196, 270), "bottle": (146, 470)}[shape]
    width, height = size
    face = Image.new("RGB", size, colour)
    pen = Pen(face, "SansCondensed-Bold", colour)
    middle = width / 2
    top = {"box": 0.14, "jar": 0.36, "can": 0.18, "bottle": 0.52}[shape] * height
    if shape == "box":
        pen.draw.rectangle((0, height * 0.5, width, height), fill=label)
        pen.draw.ellipse((middle - 74, height * 0.5, middle + 74, height * 0.5 + 148), fill=colour)
        pen.draw.ellipse((middle - 58, height * 0.5 + 22, middle + 58, height * 0.5 + 112), fill=label)
        for x, y in default_rng(0).uniform((middle - 40, height * 0.5 + 38), (middle + 30, height * 0.5 + 90), (40, 2)):
            pen.draw.ellipse((x, y, x + 13, y + 8), fill=tuple(min(255, band + 40) for band in colour))
        inks = (label, label)
    else:
        pen.draw.rectangle((0, top - 14, width, top + 132), fill=label)
        pen.draw.rectangle((0, top - 8, width, top - 4), fill=colour)
        pen.draw.rectangle((0, top + 122, width, top + 126), fill=colour)
        inks = (colour, colour)
        if shape == "jar":
            pen.draw.rectangle((0, 0, width, height * 0.19), fill=(176, 150, 70))
        elif shape == "can":
            for y in (6, 14, height - 16, height - 8):
                pen.draw.line((0, y, width, y), fill=(206, 208, 210), width=5)
        else:
            pen.draw.rectangle((0, 0, width, height * 0.12), fill=(28, 28, 26))
    for place, words in enumerate((first, second)):
        room = width * 0.84 / font("SansCondensed-Bold", 10).getlength(words)
        pen.text(
            (middle, top + (56 + 62 * place if shape == "box" else 44 + 46 * place)),
            words,
            min(66 if shape == "box" else 44, 10 * room),
            colour=inks[place],
            anchor="ms",
        )
    pen.text((middle, top + (height * 0.78 if shape == "box" else 114)), weight, 19, face="Sans", colour=colour, anchor="ms")
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :].repeat(height, 0)
    flat, round_ = 1.03 - 0.07 * x, 1.08 - 0.5 * np.abs(x + 0.12) ** 2.6 + 0.34 * np.exp(-(((x + 0.5) / 0.12) ** 2))
    light = flat if shape == "box" else round_
    shaded = camera.relight(face, light.astype(np.float32))
    shaded.putalpha(_outline(shape, size).filter(ImageFilter.GaussianBlur(0.8)))
    return shaded


def _tag(good: tuple[str, Colour, Colour, tuple[str, str], str, str, str]) -> Image.Image:
    """The price tag under it: name, price, price by weight and EAN."""
    _, _, _, (first, second), weight, price, digits = good
    tag = Image.new("RGB", (590, 172), (254, 253, 248))
    pen = Pen(tag, "Sans")
    pen.draw.rectangle((0, 0, 589, 34), fill=(246, 204, 40))
    pen.text((14, 26), f"{first} {second}".title() + f" {weight}", 25, face="SansCondensed-Bold")
    pen.text((14, 116), price, 66, face="SansCondensed-Bold")
    amount, unit = weight.split()
    each = float(price[1:]) * 100 / float(amount)
    pen.text((14, 156), f"£{each:.2f} per 100 {unit}", 22, face="SansCondensed")
    bars = code(BarcodeFormat.EAN13, ean13(digits), module=3, height=94, quiet=7)
    pen.stamp(bars.crop((0, 21, bars.width, bars.height - 21)), (590 - bars.width, 44))
    pen.text((590 - bars.width / 2, 164), ean13(digits), 23, face="SansMono", anchor="ms")
    return tag


def shelf() -> Image.Image:
    """Two shelves of a shop, four goods each, with price tags; a little from the left."""
    rng = default_rng(5)
    width, height = 2560, 1600
    wall = Image.new("RGB", (width, height), (116, 110, 102))
    front = camera.relight(wall, (1 + 0.03 * camera.cloud(rng, wall.size, 200, octaves=3)).astype(np.float32))
    for row in range(2):
        board = 590 + 790 * row
        draw = ImageDraw.Draw(front)
        draw.rectangle((0, board - 560, width, board - 470), fill=(60, 56, 52))
        _fill(front, GOODS[4 * row : 4 * row + 4], board, rng)
        draw = ImageDraw.Draw(front)
        draw.rectangle((0, board, width, board + 200), fill=(222, 222, 220))
        draw.rectangle((0, board, width, board + 8), fill=(246, 246, 244))
        draw.rectangle((0, board + 192, width, board + 200), fill=(150, 150, 148))
        for place, good in enumerate(GOODS[4 * row : 4 * row + 4]):
            left = 34 + 632 * place + int(rng.integers(-10, 10))
            draw.rectangle((left + 4, board + 20, left + 598, board + 192), fill=(176, 176, 172))
            front.paste(_tag(good), (left, board + 14))
    below = camera.shade(front.size, [(0, 0), (width, 0), (width, 120), (0, 120)], blur=50, darkness=0.55)
    below *= camera.shade(front.size, [(0, 794), (width, 794), (width, 900), (0, 900)], blur=40, darkness=0.55)
    front = camera.relight(front, below)
    scene = camera.lay(Image.new("RGB", (1920, 1280), (70, 66, 62)), front, ((-10, -24), (1944, 38), (1938, 1262), (-14, 1312)))
    light = camera.lamp(scene.size, (0.45, 0.15), bright=1.12, dark=0.74, reach=0.8)
    return camera.expose(camera.relight(scene, light), rng, blur=0.7, noise=3, tint=(1.03, 1.01, 0.95))


def _fill(
    front: Image.Image, goods: tuple[tuple[str, Colour, Colour, tuple[str, str], str, str, str], ...], board: int, rng: Generator
) -> None:
    """Stands the packets on `board` (the y of its upper edge), as many side by side as there is room."""
    for place, good in enumerate(goods):
        packet = _packet(good)
        count = 620 // (packet.width + 8)
        left = 20 + 632 * place + (612 - count * (packet.width + 8)) // 2
        for number in range(count):
            x = left + number * (packet.width + 8) + int(rng.integers(-3, 3))
            for depth, tone in ((26, 0.34), (0, float(rng.uniform(0.93, 1.03)))):
                shown = camera.relight(packet, np.full((packet.height, packet.width), tone, np.float32))
                if not depth:
                    cast = Image.new("L", front.size, 0)
                    cast.paste(packet.getchannel("A"), (x + 9, board - packet.height + 2))
                    box = (x - 40, board - packet.height - 40, x + packet.width + 60, board)
                    soft = cast.crop(box).filter(ImageFilter.GaussianBlur(9)).point(lambda value: value * 6 // 10)
                    front.paste((24, 20, 16), box, soft)
                front.paste(shown, (x + depth // 3, board - packet.height - depth), shown)


MENU = (
    ("Thé vert à la menthe", "3,20 €"),
    ("Chocolat chaud maison", "4,50 €"),
    ("Café crème", "2,80 €"),
    ("Tarte aux pommes", "4,90 €"),
    ("Crêpe au caramel salé", "5,60 €"),
    ("Quiche du jour, salade", "9,40 €"),
)


def menu_board() -> Image.Image:
    """The chalk board of a French tea room, as it should be seen: upright, 1200 x 1600."""
    rng = default_rng(6)
    size = (1080, 1420)
    slate = camera.relight(
        Image.new("RGB", size, (46, 54, 52)), (1 + 0.22 * camera.cloud(rng, size, 260, octaves=5)).astype(np.float32)
    )
    chalk = Image.new("L", size, 0)
    pen = Pen(chalk.convert("RGB"), "SerifCondensed-Italic", WHITE)
    pen.text((540, 150), "Salon de thé Églantine", 82, face="SerifCondensed-BoldItalic", anchor="ms")
    pen.rule((150, 196, 930, 190), WHITE, 5)
    pen.text((540, 272), "Aujourd'hui", 60, anchor="ms")
    for place, (dish, price) in enumerate(MENU):
        y = 380 + 104 * place
        pen.text((80, y), dish, 54, face="SerifCondensed")
        pen.text((1000, y - 2), price, 54, face="SerifCondensed-Bold", anchor="rs")
        start = 100 + font("SerifCondensed", 54).getlength(dish)
        for dot in range(int(start), 815, 22):
            pen.draw.ellipse((dot, y - 6, dot + 5, y - 1), fill=WHITE)
    pen.draw.rounded_rectangle((110, 1030, 970, 1224), 30, outline=WHITE, width=5)
    pen.text((540, 1106), "Formule midi 12,50 €", 66, face="SerifCondensed-Bold", anchor="ms")
    pen.text((540, 1182), "plat + dessert, du mardi au vendredi", 46, anchor="ms")
    pen.text((540, 1328), "Fermé le lundi", 54, anchor="ms")
    strokes = camera.pixels(pen.image.convert("L").filter(ImageFilter.GaussianBlur(0.9)))
    grain = np.clip(0.94 + 0.34 * camera.cloud(rng, size, 3, octaves=2) + 0.1 * camera.cloud(rng, size, 60), 0.35, 1)
    slate.paste((240, 238, 228), mask=camera.picture((strokes * grain).astype(np.float32)))
    framed = camera.wood(rng, (1200, 1540), (150, 104, 62), boards=1)
    ImageDraw.Draw(framed).rectangle((54, 54, 1146, 1486), fill=(40, 28, 18))
    framed.paste(slate, (60, 60))
    wall = camera.stone(rng, (1200, 1600), (196, 180, 158), rough=1.3)
    scene = camera.lay(wall, framed, ((118, 70), (1106, 132), (1076, 1498), (96, 1530)), shadow=((26, 22), 20, 0.7))
    light = camera.lamp(scene.size, (0.2, 0.3), bright=1.15, dark=0.7, reach=1.0)
    return camera.expose(camera.relight(scene, light), rng, blur=0.8, noise=4, tint=(1.02, 1, 0.96))


def business_card() -> Image.Image:
    """A business card with a QR code on a linen cloth, beside a pencil."""
    rng = default_rng(7)
    card = camera.paper(rng, (1260, 760), (250, 247, 240), grain=2.4)
    pen = Pen(card, "Sans", (44, 46, 54))
    pen.draw.rectangle((0, 0, 30, 760), fill=(22, 96, 104))
    for place, (height, colour) in enumerate(((84, (22, 96, 104)), (130, (226, 134, 58)), (104, (22, 96, 104)))):
        pen.draw.rectangle((100 + 44 * place, 224 - height, 134 + 44 * place, 224), fill=colour)
    pen.text((256, 162), "Brandt & Okoye", 64, face="Sans-Bold")
    pen.text((258, 220), "STRUCTURAL ENGINEERS", 29, colour=(22, 96, 104), spread=4)
    pen.text((100, 404), "Annika Brandt", 62, face="Serif-Bold")
    pen.text((100, 452), "Dipl.-Ing., Senior Partner", 32, face="Serif-Italic")
    for place, line in enumerate(("+49 000 5512 840", "a.brandt@brandt-okoye.example", "Werftgasse 17, 00231 Brückstedt")):
        pen.text((100, 560 + 50 * place), line, 33)
    square = code(BarcodeFormat.QRCode, "https://brandt-okoye.example/annika", module=9)
    pen.draw.rectangle((1180 - square.width - 22, 388, 1202, 388 + square.height + 44), fill=(255, 255, 252))
    pen.stamp(square, (1180 - square.width, 410))
    cloth = camera.linen(rng, (1440, 1080), (128, 140, 150))
    scene = camera.lay(cloth, card, ((196, 262), (1160, 164), (1232, 728), (218, 846)), shadow=((12, 16), 12, 0.7))
    scene = camera.lay(scene, _pencil(), ((286, 960), (1302, 786), (1310, 824), (294, 998)), shadow=((10, 18), 9, 0.6))
    light = camera.lamp(scene.size, (0.3, 0.15), bright=1.16, dark=0.72, reach=0.95)
    light *= camera.shade(scene.size, [(1040, -80), (1240, -80), (1560, 900), (1560, 1200)], blur=55, darkness=0.22)
    return camera.expose(camera.relight(scene, light), rng, blur=0.7, noise=3, tint=(1.02, 1, 0.97))


def _pencil() -> Image.Image:
    body = Image.new("RGBA", (1640, 64), (0, 0, 0, 0))
    draw = ImageDraw.Draw(body)
    draw.polygon([(1500, 0), (1636, 30), (1636, 34), (1500, 63)], fill=(222, 186, 140, 255))
    draw.polygon([(1592, 21), (1636, 30), (1636, 34), (1592, 43)], fill=(50, 48, 48, 255))
    for place, colour in enumerate(((250, 190, 60), (236, 164, 32), (188, 120, 18))):
        draw.rectangle((120, 21 * place, 1504, 21 * place + 21), fill=(*colour, 255))
    draw.rectangle((70, 0, 122, 63), fill=(190, 192, 196, 255))
    draw.rounded_rectangle((0, 3, 76, 60), 14, fill=(214, 120, 116, 255))
    return body


HOURS = (
    (f"Montag {DASH} Freitag", f"8:30 {DASH} 18:00"),
    ("Samstag", f"9:00 {DASH} 13:30"),
    ("Sonntag", "geschlossen"),
)


def opening_hours() -> Image.Image:
    """An enamel sign on a rough wall, German with an English line, under the shadow of leaves."""
    rng = default_rng(12)
    size = (1100, 1240)
    green = (18, 74, 56)
    plate = Image.new("RGBA", size, (0, 0, 0, 0))
    pen = Pen(plate, "Sans-Bold", (246, 244, 234))
    pen.draw.rounded_rectangle((0, 0, 1099, 1239), 46, fill=(*green, 255))
    pen.draw.rounded_rectangle((28, 28, 1071, 1211), 30, outline=(246, 244, 234), width=8)
    pen.text((550, 170), "Kranichweiher-Apotheke", 70, face="Serif-Bold", anchor="ms")
    pen.text((550, 240), "Inh. Dr. Ruth Wächter", 42, face="Serif-Italic", anchor="ms")
    pen.draw.ellipse((502, 274, 598, 370), fill=(246, 244, 234))
    pen.draw.line((512, 306, 588, 306), fill=green, width=8)
    pen.draw.pieslice((518, 272, 582, 348), 0, 180, fill=green)
    pen.draw.polygon([(540, 340), (560, 340), (570, 358), (530, 358)], fill=green)
    pen.draw.line((556, 304, 582, 284), fill=green, width=9)
    pen.text((550, 462), "Öffnungszeiten", 78, anchor="ms")
    for place, (days, times) in enumerate(HOURS):
        pen.row(580 + 92 * place, [(100, "l", days), (1000, "r", times)], 52, face="SansCondensed-Bold")
    pen.rule((100, 824, 1000, 824), (246, 244, 234), 4)
    pen.text((550, 900), "Opening hours: weekdays 8:30 to 18:00", 40, face="SansCondensed", anchor="ms")
    pen.text((550, 958), "Saturdays 9:00 to 13:30", 40, face="SansCondensed", anchor="ms")
    pen.text((550, 1072), "Notdienst: 0000 22 833", 58, anchor="ms")
    pen.text((550, 1140), "Bitte Nachtglocke läuten", 42, face="SansCondensed", anchor="ms")
    for x in (70, 1030):
        for y in (70, 1170):
            pen.draw.ellipse((x - 17, y - 17, x + 17, y + 17), fill=(150, 146, 136))
            pen.draw.line((x - 11, y + 8, x + 11, y - 8), fill=(70, 66, 60), width=5)
    enamel = 1 + 0.05 * camera.cloud(rng, size, 300, octaves=3)
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32)
    enamel += 0.2 * np.exp(-(((x + 0.8 * y - 760) / 170) ** 2))
    plate = camera.relight(plate, enamel.astype(np.float32))
    wall = camera.stone(rng, (1200, 1400), (214, 190, 150), rough=1.5)
    scene = camera.lay(wall, plate, ((132, 118), (1060, 72), (1088, 1288), (146, 1240)), shadow=((20, 26), 13, 0.7))
    light = camera.lamp(scene.size, (0.3, 0.4), bright=1.1, dark=0.86, reach=1.1)
    for _ in range(34):
        middle = np.array([rng.uniform(560, 1280), rng.uniform(-60, 420) - 0.1])
        turn, long = rng.uniform(0, np.pi), rng.uniform(50, 110)
        steps = np.linspace(0, 2 * np.pi, 14)
        leaf = np.stack([long * np.cos(steps), 0.4 * long * np.sin(steps)])
        spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        outline = [(float(a), float(b)) for a, b in (spin @ leaf).T + middle]
        light *= camera.shade(scene.size, outline, blur=9, darkness=0.22)
    return camera.expose(camera.relight(scene, np.maximum(light, 0.5)), rng, blur=0.7, noise=3, tint=(1.03, 1.01, 0.94))
