"""What ends an evaluation, in sentences that say what to do."""


class EvaluationError(Exception):
    """The command can't go on as it was asked to."""


class DataError(EvaluationError):
    """A data set that can't be read, or is not as it was published."""


class ServerGone(EvaluationError):
    """The server answers nothing any more; what it has answered is kept."""
