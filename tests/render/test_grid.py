import pytest

from gcaudit.render.grid import Grid, fits, lay_out
from gcaudit.render.paper import Paper, fold, text_width

GRID = Grid(
    ("#", "model", "value ↑", "what"),
    (("1", "résnet-20", "0.5 [0.4, 0.6]", "as few words as this"), ("10", "模型", "12 [10, 14]", "")),
    keys=2,
    folds=(3,),
    right=(0,),
)


def test_rows_that_fit_are_a_table_whose_columns_are_aligned():
    assert lay_out(GRID, Paper()).splitlines() == [
        " #  model      value ↑         what",
        "─" * 51,
        " 1  résnet-20  0.5 [0.4, 0.6]  as few words as this",
        "10  模型       12 [10, 14]",
    ]


def test_columns_that_may_fold_do_so_between_words():
    lines = lay_out(GRID, Paper(44)).splitlines()
    assert all(text_width(line) <= 44 for line in lines)
    assert lines[2].endswith("as few words")
    assert lines[3].strip() == "as this"
    assert fits(GRID, Paper(48))
    assert not fits(GRID, Paper(30))


def test_rows_that_do_not_fit_are_blocks():
    assert lay_out(GRID, Paper(30)).splitlines() == [
        "1  résnet-20",
        "  value ↑: 0.5 [0.4, 0.6]",
        "  what: as few words as this",
        "10  模型",
        "  value ↑: 12 [10, 14]",
    ]


@pytest.mark.parametrize("width", range(1, 60))
def test_no_width_loses_a_word_or_breaks_an_interval(width):
    text = lay_out(GRID, Paper(width))
    joined = " ".join(text.split())
    assert "0.5 [0.4, 0.6]" in text
    assert "12 [10, 14]" in text
    assert all(word in joined for word in ("résnet-20", "模型", "words", "this"))


def test_lines_are_folded_between_words_and_long_words_stay_whole():
    assert fold("a bb ccc", 4) == "a bb\nccc"
    assert fold("x = 0.5 [0.4, 0.6] y", 6) == "x\n= 0.5 [0.4, 0.6]\ny"
    assert fold("/a/very/long/path.pt is here", 8, indent=2, first=0) == "/a/very/long/path.pt\n  is\n  here"
    assert fold("anything at all", None, indent=2) == "  anything at all"


def test_colours_do_not_change_the_layout(monkeypatch):
    styled = Grid(GRID.head, GRID.rows, keys=2, folds=(3,), right=(0,), styles={2: "cyan"})
    painted = lay_out(styled, Paper(60, colours=True))
    assert "\x1b[36m" in painted
    plain = painted
    for code in ("\x1b[36m", "\x1b[1m", "\x1b[2m", "\x1b[0m"):
        plain = plain.replace(code, "")
    assert [line.rstrip() for line in plain.splitlines()] == lay_out(GRID, Paper(60)).splitlines()
