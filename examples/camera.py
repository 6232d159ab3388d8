"""What happens to a sheet on its way into a file: paper, folds, light, perspective, lens, sensor, scanner.

Every function takes and gives Pillow pictures. Randomness comes from the generator that is passed in, so a picture is
the same each time it is made.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Field = NDArray[np.float32]
Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]
Size = tuple[int, int]


def pixels(image: Image.Image) -> Field:
    """Height x width x bands, 0 to 255."""
    return np.asarray(image, dtype=np.float32)


def picture(values: Field) -> Image.Image:
    """The reverse of `pixels`, clipped to 0 to 255."""
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def cloud(rng: Generator, size: Size, cell: float, *, octaves: int = 1, stretch: float = 1) -> Field:
    """Soft noise of about -1 to 1, height x width, whose spots are `cell` pixels wide and `stretch` times as long."""
    total = np.zeros((size[1], size[0]), np.float32)
    weight = 1.0
    for octave in range(octaves):
        step = cell / 2**octave
        grid = rng.uniform(-1, 1, (int(size[1] / step / stretch) + 3, int(size[0] / step) + 3)).astype(np.float32)
        coarse = Image.fromarray(grid)
        box = (0.5, 0.5, 0.5 + size[0] / step, 0.5 + size[1] / step / stretch)
        total += weight * np.asarray(coarse.resize(size, Image.Resampling.BICUBIC, box=box))
        weight /= 2
    return total


def relight(image: Image.Image, light: Field) -> Image.Image:
    """`image` multiplied by `light` (height x width, 1 leaves as it is); transparency stays."""
    values = pixels(image).copy()
    values[..., :3] *= light[..., None]
    return picture(values)


def paper(rng: Generator, size: Size, colour: tuple[int, int, int] = (250, 248, 243), grain: float = 1.6) -> Image.Image:
    """A blank sheet with fibres: `grain` is the deviation in grey levels."""
    fibres = 0.6 * cloud(rng, size, 3) + 0.6 * cloud(rng, size, 40, octaves=2) + 0.4 * rng.standard_normal((size[1], size[0]))
    return picture(np.asarray(colour, np.float32) + (grain * fibres).astype(np.float32)[..., None])


def wood(rng: Generator, size: Size, colour: tuple[int, int, int], *, boards: int = 4) -> Image.Image:
    """So many boards one above the other, with the grain running from left to right."""
    width, height = size
    turned = (height, width)
    warp = cloud(rng, turned, 190, octaves=2, stretch=5).T
    y = np.arange(height, dtype=np.float32)[:, None]
    rings = np.sin(y / 11 + 9 * warp) * 0.45 + np.sin(y / 3.1 + 15 * warp) * 0.2
    fine = cloud(rng, turned, 3, octaves=2, stretch=45).T
    tone = 1 + 0.07 * rings + 0.075 * fine + 0.05 * warp
    board = height / (boards - 0.6)
    for place in range(1, boards):
        edge = np.abs(y - place * board + 20)
        tone = tone * (1 - 0.55 * np.exp(-((edge / 2.4) ** 2)))
        tone = tone * np.where(y > place * board - 20, 1 + 0.035 * (-1) ** place, 1)
    return picture(np.asarray(colour, np.float32) * tone.astype(np.float32)[..., None])


def stone(rng: Generator, size: Size, colour: tuple[int, int, int], rough: float = 1) -> Image.Image:
    """Plaster or concrete, lit from the upper left: `rough` scales its relief."""
    height = cloud(rng, size, 60, octaves=5) + 0.25 * cloud(rng, size, 3)
    slope = np.gradient(height, axis=0) + np.gradient(height, axis=1)
    tone = 1 + 0.03 * cloud(rng, size, 400, octaves=3) + 0.28 * rough * slope
    return picture(np.asarray(colour, np.float32) * tone.astype(np.float32)[..., None])


def linen(rng: Generator, size: Size, colour: tuple[int, int, int]) -> Image.Image:
    """Woven cloth with uneven threads."""
    across = cloud(rng, size, 3.2, stretch=26)
    along = cloud(rng, (size[1], size[0]), 3.2, stretch=26).T
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32)
    weave = 0.05 * np.sin(x * 1.35) * np.sin(y * 1.35)
    tone = 1 + 0.10 * across + 0.10 * along + weave + 0.05 * cloud(rng, size, 300, octaves=2)
    return picture(np.asarray(colour, np.float32) * tone.astype(np.float32)[..., None])


def crumple(image: Image.Image, rng: Generator, *, folds: int, depth: float, bend: float) -> Image.Image:
    """`image` after it was folded in a pocket: creases shade it (`depth`, share of the light) and shift it (`bend`, pixels)."""
    width, height = image.size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    wobble = 14 * cloud(rng, image.size, 130, octaves=2)
    relief = np.zeros((height, width), np.float32)
    for _ in range(folds):
        angle = rng.uniform(0, np.pi)
        middle = (rng.uniform(0, width), rng.uniform(0, height))
        away = (x - middle[0]) * np.cos(angle) + (y - middle[1]) * np.sin(angle) + wobble
        along = -(x - middle[0]) * np.sin(angle) + (y - middle[1]) * np.cos(angle)
        reach = rng.uniform(0.25, 0.6) * height
        ridge = np.sqrt(away**2 + 3) * np.exp(-((along / reach) ** 2)) * np.exp(-np.abs(away) / rng.uniform(50, 140))
        relief += rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1) * ridge
    relief += 5 * cloud(rng, image.size, 170, octaves=2)
    down, right = np.gradient(relief)
    shaded = relight(image, (1 + depth * (0.75 * right + 0.65 * down)).astype(np.float32))
    # Paper does not tear at a crease: the shift is smoother than the shading.
    right, down = (
        pixels(Image.fromarray(slope).reduce(14).resize(image.size, Image.Resampling.BICUBIC)) for slope in (right, down)
    )
    return _sample(shaded, x + bend * right, y + bend * down)


def _sample(image: Image.Image, x: Field, y: Field) -> Image.Image:
    """`image` looked up at the places (x, y), between pixels by two straight lines, its edge repeated outside."""
    values = pixels(image)
    x = np.clip(x, 0, image.width - 1.001)
    y = np.clip(y, 0, image.height - 1.001)
    left, top = x.astype(np.int32), y.astype(np.int32)
    over, under = (x - left)[..., None], (y - top)[..., None]
    upper = values[top, left] * (1 - over) + values[top, left + 1] * over
    lower = values[top + 1, left] * (1 - over) + values[top + 1, left + 1] * over
    return picture(upper * (1 - under) + lower * under)


def _coefficients(quad: Quad, size: Size) -> list[float]:
    """The eight numbers by which Image.transform finds, for a place on the scene, its place on a sheet of `size`."""
    corners = ((0, 0), (size[0], 0), size, (0, size[1]))
    rows: list[list[float]] = []
    for (x, y), (u, v) in zip(quad, corners, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    wanted = [value for corner in corners for value in corner]
    return [float(value) for value in np.linalg.solve(np.array(rows), np.array(wanted, float))]


def lay(scene: Image.Image, sheet: Image.Image, quad: Quad, *, shadow: tuple[Point, float, float] | None = None) -> Image.Image:
    """`scene` with `sheet` on it, its corners (upper left, then clockwise) at the four points of `quad`, in scene pixels.

    `shadow` is ((right, down), blur, darkness): pixels, pixels, 0 to 1. The sheet is sampled at twice the scene's scale.
    """
    doubled = (scene.width * 2, scene.height * 2)
    twice: Quad = tuple((2 * x, 2 * y) for x, y in quad)  # type: ignore[assignment]  # four points in, four out
    numbers = _coefficients(twice, sheet.size)
    laid = sheet.convert("RGBA").transform(doubled, Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BICUBIC)
    laid = laid.resize(scene.size, Image.Resampling.BOX)
    mask = laid.getchannel("A")
    result = scene.convert("RGB")
    if shadow:
        (right, down), blur, darkness = shadow
        cast = Image.new("L", scene.size, 0)
        cast.paste(mask, (round(right), round(down)))
        cast = cast.filter(ImageFilter.GaussianBlur(blur)).point(lambda value: int(value * darkness))
        result.paste((18, 15, 12), mask=cast)
    result.paste(laid.convert("RGB"), mask=mask)
    return result


def lamp(size: Size, at: Point, *, bright: float, dark: float, reach: float) -> Field:
    """Uneven light: `bright` at the place `at`, falling to `dark` over `reach` (places and lengths as shares of the width)."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32) / size[0]
    distance = np.hypot(x - at[0], y - at[1]) / reach
    return np.asarray(dark + (bright - dark) * np.exp(-(distance**2)), np.float32)


def shade(size: Size, outline: list[Point], *, blur: float, darkness: float) -> Field:
    """The shadow of something outside the picture: `outline` in pixels, `darkness` 0 to 1."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    covered = pixels(mask.filter(ImageFilter.GaussianBlur(blur))) / 255
    return np.asarray(1 - darkness * covered, np.float32)


def expose(
    image: Image.Image, rng: Generator, *, blur: float, noise: float, tint: tuple[float, float, float] = (1, 1, 1)
) -> Image.Image:
    """What a phone makes of the scene: `blur` in pixels, `noise` as deviation in grey levels, `tint` for each band."""
    soft = pixels(image.convert("RGB").filter(ImageFilter.GaussianBlur(blur))) * np.asarray(tint, np.float32)
    y, x = np.mgrid[0 : image.height, 0 : image.width].astype(np.float32)
    corner = np.hypot(x / image.width - 0.5, y / image.height - 0.5)
    vignette = np.asarray(1 - 0.32 * corner**2, np.float32)
    grains = rng.standard_normal((image.height, image.width, 1)) + 0.5 * rng.standard_normal((image.height, image.width, 3))
    smooth = pixels(picture((128 + 20 * grains).astype(np.float32)).filter(ImageFilter.GaussianBlur(0.7))) - 128
    # The blur leaves grains of a deviation of about 8.
    return picture(soft * vignette[..., None] + np.asarray(noise * smooth / 8, np.float32))


def scan(page: Image.Image, rng: Generator, *, turn: float, dirt: int, levels: int = 0) -> Image.Image:
    """What a flat-bed scanner makes of a page: `turn` degrees askew, `dirt` specks; grey, in `levels` steps if given."""
    tilted = page.convert("L").rotate(turn, Image.Resampling.BICUBIC, fillcolor=244)
    values = pixels(tilted.filter(ImageFilter.GaussianBlur(0.6)))
    # The scanner's own white point, which leaves most of the paper white.
    values = values * 1.03 + 1.5 * cloud(rng, page.size, 500, octaves=2)
    grey = picture(values)
    draw = ImageDraw.Draw(grey)
    for _ in range(dirt):
        x, y, radius = rng.uniform(0, page.width), rng.uniform(0, page.height), rng.uniform(0.3, 1.5)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=int(rng.uniform(60, 190)))
    if levels:
        step = 255 / (levels - 1)
        grey = grey.point(lambda value: round(round(value / step) * step))
    return grey
