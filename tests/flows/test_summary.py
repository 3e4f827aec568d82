"""What is printed for people can be read."""

import polars as pl
import pytest

from flows.summary import show_frame


@pytest.mark.parametrize("terminal", [False, True])
def test_a_wide_table_is_broken_on_a_terminal_only(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pl.DataFrame({f"a_long_column_name_{n}": [f"{n:0>30}"] for n in range(13)})
    with monkeypatch.context() as patched:
        patched.setenv("COLUMNS", "80")
        patched.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
        show_frame(frame, "table")

    said = capsys.readouterr().out
    assert all((name in said) != terminal for name in frame.columns)
