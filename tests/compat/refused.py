"""The one exception of these readers: a refusal with its stable code."""


class Refused(Exception):
    """Something was refused; `code` is one of the codes of the specification."""

    def __init__(self, code: str, why: str = "", **facts: object) -> None:
        super().__init__(f"{code}: {why}" if why else code)
        self.code = code
        self.why = why
        self.facts = facts


def malformed(why: str) -> Refused:
    return Refused("MALFORMED", why)


def limit(why: str) -> Refused:
    return Refused("LIMIT_EXCEEDED", why)
