import contextlib
import io
import sys

from processes import until

from gcaudit.progress import progress_bar, progress_board


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_many_bars_are_shown_together(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_board() as bar, contextlib.ExitStack() as stack:
        advance = [stack.enter_context(bar(f"task [{number}]", 100)) for number in range(10)]
        advance[0](40)
        until(lambda: "40/100" in screen.getvalue())
        stack.pop_all().close()
        with bar("last", 7) as one:
            one(3)
            until(lambda: "3/7" in screen.getvalue())
    shown = screen.getvalue()
    assert "task [7] (and 2 more)" in shown
    assert "task [8]" not in shown
    assert "40/100" in shown
    assert "3/7" in shown


def test_no_bar_away_from_a_terminal(capsys):
    with progress_board() as bar, bar("title", 3) as advance:
        assert advance is None
    with progress_bar("title", 3) as advance:
        assert advance is None
    assert capsys.readouterr().err == ""
