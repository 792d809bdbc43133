"""The words of a report, each explained in a line, for someone who has read nothing else.

Owns wording only. Names of kinds are those of the code; a test tells when one is not explained.
"""

from __future__ import annotations

LEAD = (
    "Facts were planted at known places in long text, and asked for: once of a model that keeps "
    "its whole cache, once of the same kind of model with a compressed one. What the second loses "
    "on the same questions is the compression tax."
)

ASKED = {
    "needle": "the planted fact, such as a name and its number; only the text around it varies",
    "haystack": "the long text it is planted in",
    "stream": "one text with all its needles, read once; its questions are asked along the way, so "
    "they are not independent, and intervals allow for that",
    "length": "tokens of the prompt, the question included",
    "depth": "where the needle begins: 0% is the start of the text, 100% just before the question",
    "arm": "one of the models compared; the baseline is the one that keeps everything",
    "pair": "one question put to both arms on the same tokens",
    "tax": "share of the pairs that the baseline answers and the compressed arm does not, minus "
    "the reverse, in percentage points; undefined where the baseline itself recalls too little",
    "lost, gained": "pairs that only the baseline, or only the compressed arm, answered",
}
ERRORS = {
    "exact": "the planted value, and no other",
    "near_miss": "almost the planted value: a digit or a letter is wrong",
    "distractor": "the value of another fact that was planted to mislead",
    "copied": "a value that stands in the text, but is no answer to the question",
    "invented": "a value that stands nowhere in the prompt",
    "denied": "the model says that it does not know, or that there is no such fact",
    "malformed": "no value of the kind that was asked for",
    "truncated": "cut off by the limit of new tokens before a value was complete",
    "error": "the program failed; counts as asked and not recalled",
}
LOSSES = {
    "selection": "no layer selected an entry that holds the wanted token",
    "compression": "an entry that holds it was selected, and the token was not read out of it",
    "window": "the token was still in the exact window",
    "elsewhere": "of no one place: answers of several values, errors, other tokens",
}
CACHE = {
    "window": "the last tokens, kept exactly",
    "compressed": "entries that each stand for several tokens",
    "index": "keys by which entries are selected",
    "tail": "tokens that do not fill an entry yet",
    "full": "every token, kept exactly: what the baseline holds",
}

GROUPS = {
    "What was asked": ASKED,
    "Kinds of error": ERRORS,
    "Where a needle was lost": LOSSES,
    "What a cache holds": CACHE,
}
