"""The order of lines on a page, from boxes alone."""

import math
import random

import pytest

from pipeline.engines.ocr.reading_order import TextLine, page_angle, page_text

HEIGHT = 20.0
LETTER = 10.0  # pixels a letter is wide


def at(x, y, text, *, height=HEIGHT, right=False):
    """A line whose left (or right) edge is at x and whose top is at y."""
    width = LETTER * len(text) * height / HEIGHT
    left = x - width if right else x
    return TextLine(text=text, box=((left, y), (left + width, y), (left + width, y + height), (left, y + height)))


def turned(lines, degrees):
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [
        TextLine(text=line.text, box=tuple((x * cos - y * sin + 900, x * sin + y * cos + 900) for x, y in line.box))
        for line in lines
    ]


def shuffled(lines):
    mixed = list(lines)
    random.Random(7).shuffle(mixed)
    return mixed


RECEIPT = [
    at(40, 0, "CORNER SHOP"),
    *[at(40, 60 + 30 * row, item) for row, item in enumerate(["Whole milk 1 l", "Bread", "Eggs, free range", "Butter"])],
    *[at(500, 60 + 30 * row, price, right=True) for row, price in enumerate(["1.89", "4.20", "13.75", "2.49"])],
]
RECEIPT_TEXT = "CORNER SHOP\n\nWhole milk 1 l   1.89\nBread   4.20\nEggs, free range   13.75\nButter   2.49"

LEFT = ["the lamp on the point was", "lit by hand every evening", "by a keeper who climbed a", "long and narrow stairway."]
RIGHT = ["a group of old volunteers", "spent the winter cleaning", "the brass and the wheels,", "and made nine of them new"]
ARTICLE = [at(0, 30 * row, text) for row, text in enumerate(LEFT)] + [at(300, 30 * row, text) for row, text in enumerate(RIGHT)]
ARTICLE_TEXT = "\n".join(LEFT) + "\n\n" + "\n".join(RIGHT)


def test_a_page_without_lines_has_no_text():
    assert page_text([]) == ""
    assert page_text([at(0, 0, "  ")]) == ""
    assert page_angle([]) == 0.0


def test_lines_of_one_column_are_read_from_the_top():
    lines = [at(0, 30 * row, f"line {row}") for row in range(5)]
    assert page_text(shuffled(lines)) == "line 0\nline 1\nline 2\nline 3\nline 4"


def test_words_of_one_baseline_are_joined_by_one_space_and_cells_by_more():
    assert page_text([at(65, 2, "world"), at(0, 0, "hello"), at(300, -2, "42")]) == "hello world   42"


def test_a_receipt_is_read_row_by_row():
    assert page_text(shuffled(RECEIPT)) == RECEIPT_TEXT


def test_a_receipt_with_a_wrapped_item_is_still_read_row_by_row():
    lines = [
        at(40, 0, "Dark chocolate with sea"),
        at(40, 30, "salt and roast hazelnuts"),
        at(500, 0, "3.20"),
        at(40, 60, "Sourdough bread, sliced,"),
        at(40, 90, "baked in the morning"),
        at(500, 60, "4.80"),
        at(40, 120, "Free range eggs, a dozen"),
        at(500, 120, "3.75"),
    ]
    assert page_text(shuffled(lines)).splitlines()[0] == "Dark chocolate with sea   3.20"
    assert page_text(shuffled(lines)).splitlines()[-1] == "Free range eggs, a dozen   3.75"


def test_a_table_is_read_row_by_row():
    cells = [["Item", "Qty", "Price"], ["Lens 22 mm", "12", "41.50"], ["Mirror", "6", "58.20"], ["Mount M6", "8", "96.75"]]
    lines = [at(200 * column, 40 * row, cell) for row, cells_of in enumerate(cells) for column, cell in enumerate(cells_of)]
    assert page_text(shuffled(lines)) == "\n".join("   ".join(row) for row in cells)


def test_a_table_of_long_numbers_is_not_taken_for_columns_of_text():
    rows = [("DE59 0002 0500 0041 7296", "GB29 0002 6016 1331 9268")] * 5
    lines = [at(300 * column, 30 * row, cell) for row, cells in enumerate(rows) for column, cell in enumerate(cells)]
    assert page_text(lines).splitlines()[0] == "   ".join(rows[0])


def test_an_article_in_two_columns_is_read_column_by_column():
    assert page_text(shuffled(ARTICLE)) == ARTICLE_TEXT


def test_an_article_in_three_columns_is_read_column_by_column():
    columns = [[f"{name} column has its line {row}" for row in "abcd"] for name in ("left", "main", "last")]
    lines = [at(330 * x, 30 * y, text) for x, column in enumerate(columns) for y, text in enumerate(column)]
    assert page_text(shuffled(lines)) == "\n\n".join("\n".join(column) for column in columns)


def test_columns_whose_baselines_differ_are_read_column_by_column():
    ragged = ["Open from six to noon", "Closed on Sunday", "Warm rolls and cakes", "Fore Street number 9", "Ring twice, please"]
    lines = [at(0, 30 * row, text) for row, text in enumerate(ragged)]
    lines += [at(300, 30 * row + 15, text) for row, text in enumerate(RIGHT)]
    assert page_text(shuffled(lines)) == "\n".join(ragged) + "\n\n" + "\n".join(RIGHT)


def test_a_headline_over_two_columns_is_read_first_and_a_footer_under_them_last():
    lines = [at(20, -60, "Lighthouse clockwork ticks again", height=32)]
    lines += ARTICLE
    lines += [at(150, 180, "The Ellery Herald, page 7")]
    assert page_text(shuffled(lines)) == f"Lighthouse clockwork ticks again\n\n{ARTICLE_TEXT}\n\nThe Ellery Herald, page 7"


def test_a_table_under_an_article_is_read_by_rows():
    table = [at(x, 200 + 30 * y, f"{x}-{y}") for x in (0, 150, 460) for y in range(4)]
    text = page_text(shuffled(ARTICLE + table))
    assert text.startswith(ARTICLE_TEXT)
    assert text.endswith("0-3   150-3   460-3")


def test_bullets_belong_to_the_column_they_stand_in():
    lines = [at(0, 30 * row, "-") for row in range(4)]
    lines += [at(40, 30 * row, text) for row, text in enumerate(LEFT)]
    lines += [at(380, 30 * row, text) for row, text in enumerate(RIGHT)]
    assert page_text(shuffled(lines)) == "\n".join(f"-   {text}" for text in LEFT) + "\n\n" + "\n".join(RIGHT)


def test_paragraphs_are_parted_by_an_empty_line():
    lines = [at(0, y, f"line at {y}") for y in (0, 25, 50, 110, 135)]
    assert page_text(lines) == "line at 0\nline at 25\nline at 50\n\nline at 110\nline at 135"


@pytest.mark.parametrize("degrees", [-4, -1.5, 0, 2, 5, 88, 90, 93, 180, 177, 270, 266])
@pytest.mark.parametrize(("lines", "text"), [(RECEIPT, RECEIPT_TEXT), (ARTICLE, ARTICLE_TEXT)], ids=["receipt", "article"])
def test_a_skewed_or_turned_page_reads_like_a_straight_one(lines, text, degrees):
    assert page_text(shuffled(turned(lines, degrees))) == text


@pytest.mark.parametrize("degrees", [-170, -90, -3, 0, 3, 45, 90, 135, 180])
def test_the_angle_of_a_page_is_that_of_its_text(degrees):
    off = page_angle(turned(ARTICLE, degrees)) - math.radians(degrees)
    assert abs((off + math.pi) % math.tau - math.pi) < 1e-9


def test_one_stray_box_does_not_tilt_the_page():
    stray = turned([at(0, 0, "stamp")], 40)
    assert page_angle(RECEIPT + stray) == 0.0


def test_every_line_is_read_exactly_once_wherever_it_stands():
    chance = random.Random(11)
    for _ in range(200):
        lines = [
            at(chance.uniform(0, 900), chance.uniform(0, 700), f"w{number}w" * chance.randint(1, 6), height=chance.uniform(8, 60))
            for number in range(chance.randint(1, 60))
        ]
        read = page_text(turned(lines, chance.uniform(-180, 180))).split()
        assert sorted(read) == sorted(line.text for line in lines)


def test_a_table_of_thousands_of_rows_is_read_row_by_row():
    lines = [at(x, 30 * y, f"{x}-{y}") for x in (0, 200, 400) for y in range(4000)]
    assert page_text(lines) == "\n".join(f"0-{y}   200-{y}   400-{y}" for y in range(4000))
