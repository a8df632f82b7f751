"""A server as a process for the length of a block."""

import urllib.request

import pytest
import served_models

from tfavmae.errors import UserError
from tfavmae.serving.local import local_server


def test_it_answers_while_the_block_runs_and_ends_with_it(tmp_path):
    served_models.save(tmp_path / "ears" / "1")
    served_models.save(tmp_path / "eyes" / "7")
    with local_server(tmp_path, "--max-requests", "2") as server:
        assert server.models == ("ears", "eyes")
        with urllib.request.urlopen(f"{server.url}/healthz") as reply:
            assert reply.status == 200
    assert server.process.returncode == 0


def test_why_it_does_not_start_is_said(tmp_path):
    with (
        pytest.raises(UserError, match=r"ended with status 2: .*no numbered version"),
        local_server(tmp_path),
    ):
        raise AssertionError("no server is there")


def test_an_error_of_the_block_ends_the_server_and_is_its_own(tmp_path):
    served_models.save(tmp_path / "ears" / "1")
    with pytest.raises(ZeroDivisionError), local_server(tmp_path / "ears") as server:
        1 / 0  # noqa: B018
    assert server.process.returncode == 0
