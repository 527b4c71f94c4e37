"""A few kills of `python -m tests.crash`, which kills 100 times by itself."""

import shutil

import pytest

from tests.crash import crash


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace on the PATH")
def test_commands_that_are_killed_end_as_if_they_never_were(tmp_path):
    assert crash(5, 1, tmp_path) == []
