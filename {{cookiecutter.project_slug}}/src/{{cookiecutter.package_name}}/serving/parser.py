"""The process that parses large requests, one after the other, for `parser_process`."""

import os
import pickle
import struct
import sys
from contextlib import suppress

from pydantic import TypeAdapter, ValidationError

from .schemas import first_problem, predict_request

LENGTH = struct.Struct("<I")  # of a message, which follows


def main() -> None:
    """Parse what standard input brings, until it ends."""
    with suppress(AttributeError, OSError):
        os.nice(5)  # the server goes first
    adapter = TypeAdapter(predict_request(int(sys.argv[1])))
    while head := sys.stdin.buffer.read(LENGTH.size):
        body = sys.stdin.buffer.read(*LENGTH.unpack(head))
        problem, items = None, []
        try:
            request = adapter.validate_json(body)
            items = [pickle.dumps(item) for item in request.items]  # pyright: ignore[reportAttributeAccessIssue]
        except ValidationError as error:
            problem = first_problem(error)
        answer = pickle.dumps((problem, items))
        sys.stdout.buffer.write(LENGTH.pack(len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
