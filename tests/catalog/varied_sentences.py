"""Sentences of many kinds, the same for the same seed."""

import random

_SUBJECTS = (
    "the old lighthouse",
    "a nervous accountant",
    "our database",
    "my grandmother's recipe",
    "the night train to Vienna",
    "quantum theory",
    "a flock of starlings",
    "the central bank",
    "this jacket",
    "an abandoned factory",
    "the youngest chess champion",
    "photosynthesis",
    "the referee",
    "her passport",
    "a 17th century violin",
    "the vaccine trial",
    "the coffee machine",
    "a red panda",
    "the merger agreement",
    "volcanic ash",
)
_PREDICATES = (
    "was sold for 4,200 euros last Tuesday",
    "cannot be explained without mathematics",
    "keeps failing at 3 a.m.",
    "smells of cinnamon and smoke",
    "has been delayed again because of the strike",
    "won by a single point",
    "reminds me of a song I heard as a child",
    "needs a signature before Friday",
    "disappeared into the fog",
    "reduces the risk by roughly 40 percent",
    "was never meant to be public",
    "sleeps most of the afternoon",
    "changed how people think about light",
    "is made of recycled plastic",
    "belongs in a museum",
)
_ENDINGS = (
    ".",
    "!",
    "?",
    ", and nobody noticed.",
    " - at least according to the newspaper.",
    "; see chapter 12 for details.",
    ", which surprised even those who had followed the case for a decade and written three books about it.",
    " :-)",
    " (naïve café, 東京, ünïcode).",
    ", said the mayor.",
)


#: One or two words or signs, where int8 has the least to average over.
FRAGMENTS = ("ok", "?!", "Hello", "a", "...", "#$%", "Hi!", "no way", "42", "Hello there!")


def sentences(count, seed=11):
    """Varied sentences: questions, remarks, code, other languages, long ones."""
    chosen = random.Random(seed)
    special = [
        "Is it raining in Lisbon?",
        "He left.",
        "How do I reset my password?",
        "SELECT * FROM users WHERE id = 7;",
        "E = mc^2",
        "Por qué no te callas?",
        "The cat sat on the mat. " * 20,
        "error: connection refused (111)",
    ]
    made: list[str] = []
    while len(made) < count:
        parts = (_SUBJECTS, _PREDICATES, _ENDINGS)
        subject, predicate, ending = (chosen.choice(part) for part in parts)
        made.append(f"{subject} {predicate}{ending}")
    return [*special, *made][:count]
