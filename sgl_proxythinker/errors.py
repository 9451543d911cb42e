"""Errors that end a launch, and errors that end one request."""


class LaunchError(ValueError):
    """This server can't start as asked. The message says what was found, why it matters and what to do."""


class RequestError(ValueError):
    """This request can't be served as asked: HTTP 400. SGLang answers 400 to a ValueError."""
