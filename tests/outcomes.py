"""How calls and programs end."""

from __future__ import annotations

import os
import subprocess

import pytest

from util.errors import UserError


def refused(words, function, *arguments, **keywords):
    """The call ends in a UserError of one reasonable message that has the words."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    for word in [words] if isinstance(words, str) else words:
        assert word in message, message
    assert len(message) < 3000
    return message


def printed_by(command, environment, is_terminal):
    """What a program that ends with status 2 prints (stdout and stderr) to a terminal or a pipe."""
    reader, writer = os.openpty() if is_terminal else os.pipe()
    process = subprocess.Popen(command, stdout=writer, stderr=writer, env=environment)
    os.close(writer)
    printed = b""
    while True:
        try:
            part = os.read(reader, 4096)
        except OSError:  # the other end of a terminal is closed
            part = b""
        if not part:
            break
        printed += part
    os.close(reader)
    assert process.wait() == 2, printed.decode()
    return printed.decode()
