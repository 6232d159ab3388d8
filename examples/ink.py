"""Type, bar codes and check digits for the example pictures."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import zxingcpp
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

#: Where the DejaVu fonts are looked for, in this order: Debian and Ubuntu, Fedora, Arch, macOS.
FONT_FOLDERS = (
    Path("/usr/share/fonts/truetype/dejavu"),
    Path("/usr/share/fonts/dejavu-sans-fonts"),
    Path("/usr/share/fonts/TTF"),
    Path.home() / "Library/Fonts",
)

BLACK: Colour = (22, 22, 24)
WHITE: Colour = (255, 255, 255)
DASH = "\N{EN DASH}"


@cache
def font(face: str, size: float) -> ImageFont.FreeTypeFont:
    """`face` is what follows "DejaVu" in the file's name, such as "Sans-Bold"; `size` is in pixels.

    Raises FileNotFoundError if no folder has the face.
    """
    for folder in FONT_FOLDERS:
        path = folder / f"DejaVu{face}.ttf"
        if path.exists():
            return ImageFont.truetype(path, size)
    raise FileNotFoundError(f"DejaVu{face}.ttf is in none of {', '.join(map(str, FONT_FOLDERS))}")


class Pen:
    """Writes on one picture and remembers the face, so that a layout reads as a list of lines."""

    def __init__(self, image: Image.Image, face: str = "Sans", colour: Colour = BLACK) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.face = face
        self.colour = colour

    def text(
        self,
        at: tuple[float, float],
        words: str,
        size: float,
        *,
        face: str = "",
        colour: Colour | None = None,
        anchor: str = "ls",
        spread: float = 0,
    ) -> None:
        """`at` is the anchor point in pixels, on the base line unless `anchor` says else; `spread` is pixels between letters."""
        chosen = font(face or self.face, size)
        fill = colour or self.colour
        if not spread:
            self.draw.text(at, words, font=chosen, fill=fill, anchor=anchor)
            return
        width = sum(chosen.getlength(letter) + spread for letter in words) - spread
        x = at[0] - {"l": 0.0, "m": width / 2, "r": width}[anchor[0]]
        for letter in words:
            self.draw.text((x, at[1]), letter, font=chosen, fill=fill, anchor="l" + anchor[1])
            x += chosen.getlength(letter) + spread

    def row(
        self, y: float, cells: list[tuple[float, str, str]], size: float, *, face: str = "", colour: Colour | None = None
    ) -> None:
        """One table row: each cell is (x, "l" "m" or "r", words), all on the base line `y`."""
        for x, side, words in cells:
            self.text((x, y), words, size, face=face, colour=colour, anchor=side + "s")

    def rule(self, box: tuple[float, float, float, float], colour: Colour = BLACK, width: int = 2) -> None:
        self.draw.line(box, fill=colour, width=width)

    def dashes(self, left: float, right: float, y: float, *, dash: int = 14, gap: int = 9, width: int = 2) -> None:
        x = left
        while x < right:
            self.draw.line((x, y, min(x + dash, right), y), fill=self.colour, width=width)
            x += dash + gap

    def stamp(self, picture: Image.Image, at: tuple[float, float]) -> None:
        """Pastes `picture` with its upper left corner at `at`."""
        self.image.paste(picture, (round(at[0]), round(at[1])))


def wrap(words: str, face: str, size: float, width: float) -> list[str]:
    """Lines of `words` no wider than `width` pixels; a single longer word stands alone."""
    chosen = font(face, size)
    lines: list[str] = []
    line = ""
    for word in words.split():
        longer = f"{line} {word}" if line else word
        if line and chosen.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line] if line else lines


def code(kind: zxingcpp.BarcodeFormat, text: str, *, module: int, height: int = 0, quiet: int = 0) -> Image.Image:
    """A bar code, black on white, mode L: `module` is the width in pixels of its narrowest bar.

    `height` in pixels for codes made of bars (a QR code is square and takes none); `quiet` is the white border in modules.
    """
    modules = Image.fromarray(np.array(zxingcpp.create_barcode(text, kind).to_image(scale=1, add_quiet_zones=False)))
    if height:
        modules = modules.crop((0, 0, modules.width, 1)).resize((modules.width * module, height), Image.Resampling.NEAREST)
    else:
        modules = modules.resize((modules.width * module, modules.height * module), Image.Resampling.NEAREST)
    border = quiet * module
    framed = Image.new("L", (modules.width + 2 * border, modules.height + 2 * border), 255)
    framed.paste(modules, (border, border))
    return framed


def ean13(first: str) -> str:
    """The 12 digits `first` with their check digit (GS1: weights 1 and 3 by turns)."""
    weighed = sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(first))
    return first + str(-weighed % 10)


def iban(country: str, account: str) -> str:
    """`account` (the country's own part) as an IBAN in groups of four (ISO 13616: the rest by 97 is 1)."""
    digits = "".join(str(int(letter, 36)) for letter in account + country + "00")
    whole = f"{country}{98 - int(digits) % 97:02}{account}"
    return " ".join(whole[start : start + 4] for start in range(0, len(whole), 4))
