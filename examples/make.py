"""Draws the example pictures into this folder. For developers only: the pictures are committed and never made at run time.

    python examples/make.py            # all
    python examples/make.py 05 07      # those whose names start so

Another version of Pillow may give other bytes, so run check.py afterwards and look at what changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import papers
import pillow_heif
import scenes
import screens
from PIL import ExifTags, Image

HERE = Path(__file__).resolve().parent


def _turned(path: Path) -> None:
    """Stored as the sensor lay: sideways, with the tag that says "turn by 90 degrees clockwise to look at"."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    scenes.menu_board().transpose(Image.Transpose.ROTATE_90).save(path, quality=72, exif=exif)


def _heic(path: Path) -> None:
    pillow_heif.from_pillow(scenes.business_card()).save(path, quality=58)


def _animated(path: Path) -> None:
    first, *rest = screens.ferry_banner()
    first.save(path, save_all=True, append_images=rest, duration=2500, loop=0, optimize=True)


PICTURES: dict[str, Callable[[Path], None]] = {
    "01-till-receipt.png": lambda path: papers.till_receipt().save(path, optimize=True),
    "02-crumpled-receipt.jpg": lambda path: papers.crumpled_receipt().save(path, quality=74),
    "03-invoice.tiff": lambda path: papers.invoice().save(path, compression="group4", dpi=(200, 200)),
    "04-order-screen.png": lambda path: screens.order_screen().save(path, optimize=True),
    "05-shelf.jpg": lambda path: scenes.shelf().save(path, quality=70),
    "06-sideways-menu.jpg": _turned,
    "07-business-card.heic": _heic,
    "08-catalogue-page.webp": lambda path: screens.catalogue_page().save(path, quality=82, method=6),
    "09-ferry-banner.gif": _animated,
    "10-two-column-article.png": lambda path: papers.article().save(path, optimize=True),
    "11-shipping-label.png": lambda path: papers.shipping_label().save(path, optimize=True),
    "12-opening-hours.webp": lambda path: scenes.opening_hours().save(path, quality=72, method=6),
}


def main(prefixes: list[str]) -> None:
    for name, make in PICTURES.items():
        if not prefixes or name.startswith(tuple(prefixes)):
            make(HERE / name)
    sizes = {name: (HERE / name).stat().st_size for name in PICTURES}
    for name, size in sizes.items():
        print(f"{size:9,}  {name}")
    print(f"{sum(sizes.values()):9,}  bytes in all")


if __name__ == "__main__":
    main(sys.argv[1:])
