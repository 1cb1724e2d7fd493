"""A user's function that reads answers: the last word that is shouted, or a gold answer's first word."""


def shouted(question: str, text: str) -> str | None:
    words = [w for w in text.split() if w.isupper() and len(w) > 1]
    return words[-1].lower() if words else text.split()[0] if text.endswith("!") else None
