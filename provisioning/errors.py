"""What can go wrong on the way to a node."""


class ProvisioningError(Exception):
    """A node could not be read or changed; the message is one line for the operator.

    `permanent` says that trying again changes nothing.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent
