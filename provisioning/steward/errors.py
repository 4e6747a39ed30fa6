"""What the steward answers when it does not do what it was asked."""


class Refusal(Exception):
    """A request that is not carried out.

    `code` is for programs, `message` one line of cause and `hint` one line of remedy for people.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def as_answer(self) -> dict[str, object]:
        """The line that tells the caller."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}
