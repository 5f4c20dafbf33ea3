"""What stops the check."""


class CheckError(Exception):
    """One message for the user, who can do something about it."""


class StopError(Exception):
    """A signal asked for the end.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number
