"""The words of a report, each explained in a line, for someone who has read nothing else.

Names of kinds are those of the code; a test tells when a name is not explained.
"""

from __future__ import annotations

from collections.abc import Mapping

PLANTED = "Facts were planted at known places in long text, and asked for."
COMPRESSED = (
    "Each question went to a model that keeps its whole cache and to one of the same kind with a "
    "compressed cache. What the second loses on the same questions is the compression tax."
)
REPEATED = (
    "Where an arm is set against itself in an earlier run, lost is what it recalled there and does "
    "not recall here: a difference between runs, not a cost of compression."
)

ASKED = {
    "needle": "the planted fact, such as a name and its number; only the text around it varies",
    "gold": "the right answer to a question: the planted value",
    "haystack": "the long text it is planted in",
    "stream": "one text with all its needles, read once; its questions are asked along the way, so "
    "they are not independent, and intervals allow for that",
    "length": "tokens of the prompt, the question included",
    "depth": "where the needle begins: 0% is the start of the text, 100% just before the question",
    "residue (mod 4)": "what is left of a length, or of the place of a needle, after division by "
    "4 or 128: compression works in blocks of these sizes",
    "arm": "one of the models compared; the baseline is the one that keeps everything, and a "
    "repeat is the baseline asked once more",
    "rivals": "values in the prompt that answer another question",
    "prefill": "reading the prompt, up to the first token of the answer",
}
COUNTED = {
    "pair": "one question put to both arms on the same tokens",
    "recall": "share of the questions that were answered exactly; an error is none of them",
    "contains": "share of the questions whose answer holds the right value, whatever else it says",
    "tax": "share of the pairs that the baseline answers and the compressed arm does not, minus "
    "the reverse, in percentage points; undefined where the baseline itself recalls too little",
    "lost, gained": "pairs that only the baseline, or only the compressed arm, answered",
    "95% interval": "the values that fit the answers: of a hundred such intervals about five miss "
    "the true one. A tax is shown where its interval excludes zero",
    "noise floor": "share of the questions that the baseline, asked once more, answers right where "
    "it did not before, or the reverse",
    "luck of training": "how far the tax moves where both arms are trained once more from other "
    "seeds; an arm of role retrained is the baseline, trained so",
    "gold log-probability": "the natural logarithm of the probability that a model gives to the "
    "right answer after the question; 0 is certain. Differences are in nats: −0.7 is half as "
    "likely",
    "too few streams": "the questions come from too few streams, or from streams of too unlike "
    "sizes, to tell a difference from chance: nothing is decided there",
    "p (Holm)": "how often chance would give so large a tax, or a larger one, where there is none; "
    "adjusted for all slices that were looked at",
}
ANSWERS = {
    "exact": "the planted value, and no other",
    "reordered": "the planted value with its characters in another order",
    "near_miss": "almost the planted value: a digit or a letter is wrong",
    "distractor": "the value of another fact that was planted to mislead",
    "copied": "a value that stands in the text, but is no answer to the question",
    "invented": "a value that stands nowhere in the prompt",
    "repetition": "the same words again and again up to the end, and not the planted value",
    "denied": "the model says that it does not know, or that there is no such fact",
    "malformed": "no value of the kind that was asked for, or more values than were asked for",
    "truncated": "cut off by the limit of new tokens before a value was complete, or in a thought",
    "error": "the program failed; counts as asked and not recalled",
}
SELECTED = {
    "entry": "what a compressed cache keeps of several tokens together",
    "layer": "one of the stages of a model; each keeps a cache, and some select entries of it",
    "rank": "the place of an entry when a layer orders all by how well they fit; the first few are "
    "selected, and only they are read",
}
LOSSES = {
    "selection": "no layer selected an entry that holds the wanted token",
    "compression": "an entry that holds it was selected, and the token was not read out of it",
    "window": "the token was still in the exact window",
    "elsewhere": "of no one place: answers of several values, errors, other tokens",
}
CACHE = {  # for runs of before models explained their kinds
    "window": "the last tokens, kept exactly",
    "compressed": "entries that each stand for several tokens",
    "index": "keys by which entries are selected",
    "tail": "tokens that do not fill an entry yet",
    "full": "every token, kept exactly: what the baseline holds",
}

GROUPS: dict[str, Mapping[str, str]] = {
    "What was asked": ASKED,
    "What is counted": COUNTED,
    "How an answer is judged": ANSWERS,
    "Where a needle was lost": SELECTED | LOSSES,
    "What a cache holds": CACHE,
}


def groups(kinds: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """The words of a page whose models hold these kinds of cache, each explained."""
    return GROUPS | {"What a cache holds": kinds} if kinds else dict(GROUPS)


def lead(compressed: bool, repeated: bool) -> str:
    """What a page is about: compressed arms, arms in several runs, both, or arms alone."""
    said = (PLANTED, COMPRESSED * compressed, REPEATED * repeated)
    return " ".join(filter(None, said))
