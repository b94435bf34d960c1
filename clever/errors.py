"""Errors that a user can mend: they end a command with a message and exit code 2, never with a traceback."""


class RequestError(ValueError):
    """What was asked for is wrong. Holds every mistake that was found, one message each."""

    def __init__(self, *messages: str):
        super().__init__("\n".join(messages))
        self.messages = messages
