"""A command as a person calls it, in this process."""

from unittest.mock import patch

import pytest

from flows.cli import main


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """(what `nightshift <arguments>` ended with: 0, another status or a last sentence; all that it printed)."""
    with patch("sys.argv", ["nightshift", *arguments]), pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return ended.value.code, said.out + said.err
