"""Finds how an answer denies: that it can tell at all, or one of the values that it names.

Every table below is a list of phrases, matched whole and in either case. Chinese and Japanese
phrases are matched anywhere, for those scripts have no spaces.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

ValueRange = tuple[int, int]  # start and end of a value


def one_of(*phrases: str, unspaced: str = "(?!)") -> re.Pattern[str]:
    """Any of the phrases, each of whole words, or of those of scripts without spaces."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(phrases)})(?!\w)|{unspaced}", re.I)


ANY_OTHER = r"(?! (?:any(?:thing)? )?(?:other|further|more|else))"
# The text does not tell, or the model does not know.
REFUSALS = one_of(
    "no (?:such|mention|information|record|idea|answer|value|code|word|number|name|date|sum)",
    r"no (?!other|one|doubt|problem|worr)\w+ (?:is|was|are|were)",
    "unclear|uncertain",
    "not (?:mentioned|given|stated|specified|provided|known|sure|found|available|in the text)",
    rf"(?:do|does|did|is|was)(?:n['’]t| not) (?:know|say|mention|contain|have|give){ANY_OTHER}",
    rf"(?:do|does|did|is|was)(?:n['’]t| not) (?:state|appear|provide|specif\w*){ANY_OTHER}",
    "(?:do|does|did|is|was)(?:n['’]t| not) (?:mentioned|given|stated|provided)",
    rf"could(?:n['’]t| not) (?:find|say|tell){ANY_OTHER}",
    f"(?:cannot|can['’]?t|unable to)(?! find){ANY_OTHER}",
    f"(?:cannot|can['’]?t|unable to) find{ANY_OTHER}",
    f"(?:unknown|none|nothing|n/a){ANY_OTHER}",
    unspaced="没有|不知道|找不到|わかりません|ありません|없습니다",
)
SORRY = one_of("sorry")  # a refusal only where nothing is named
# Of the value that comes next: it is not that one.
DENIES_NEXT = one_of(
    r"not|never|neither|nor|cannot|\w*n['’]t",
    "no longer",
    "wrong|incorrect|false|untrue|unlikely|impossible|far from",
    r"rul(?:e|es|ed|ing) out|exclud\w*|doubt\w*|den(?:y|ies|ied)|reject\w*",
    "except|all but|(?:any|every)thing (?:else )?but",
    "by no means|in no way|no one|nobody|hardly|scarcely|avoid|refuse|ignore|whether",
    r"rather than|other (?:\w+ )?than|instead of",
    "no (?:es|era|son|fue)|nunca|jamás|ning[uú]n\\w*|nicht|nie(?:mals)?|kein\\w*",
    "n['’]est|pas|jamais",
    "non (?:è|era)|mai|nessun\\w*|não|niet|geen|inte|ikke|ei ole|ne|nem|nu este|değil|не|ні|δεν",
    "không|bukan|tidak|ليس|ليست|לא|नहीं",
    unspaced="不是|不为|不可能|并非|不對|不对|没有|아니|ไม่",
)
# After one of those: what comes next is meant again.
MEANS_NEXT = re.compile(
    r"(?<!thing )(?<!all )(?<!else )\bbut\b"
    r"|[,;]\s*(?:(?:it|that)(?: is| was|['’]s)|rather|instead)\b(?! (?:of|than))"
    r"|;\s*the \w+ (?:is|was)\b",
    re.I,
)
# These sound like a denial and are none: they are left out before anything is looked for.
AFFIRMS = re.compile(
    r"\bnot (?:a )?(?:problem|trouble|worry|at all)\s*[:,.!–—-]"
    r"|\bnot (?:surprisingly|unexpectedly|coincidentally|accidentally|incidentally)\s*,"
    r"|\b(?:if|unless) i(?:['’]m| am)(?: not)? (?:completely |entirely |much )?(?:mistaken|wrong)"
    r"|\b(?:no|without (?:a|any)|beyond (?:a|any)) doubt\b"
    r"|\b(?:none|nothing|no one|no other) (?:but|other than)\b"
    r"|\b(?:can['’]?t|cannot) (?:miss|be missed)\b"
    r"|\bnot only\b|\b(?:do not|don['’]t) worry\b|\b(?:is not|isn['’]t) (?:hard|difficult) to\b"
    r"|\bwon['’]t (?:keep you waiting|disappoint)\b",
    re.I,
)
# Right behind a value, in its sentence: it is not that one after all.
BEHIND = r"[^\w?.!\n]*"
IS = "(?:is|was|are|were|would be|might be)"
IT_IS = "(?:which|that|this|it)(?: is| was|['’]s)"
IT = "(?:the|an?|it|right|correct|true|valid)"  # so that "was never seen again" says nothing of it
# In the next sentence prose may go on: "It is not a good thing ..." is none of these.
THE_ANSWER = (
    r"(?:right|correct|true|valid|the (?:right |correct )?(?:answer|value|code|word|number|name"
    r"|identifier|date|sum|amount|term|version|constant|key|one))"
)
NEXT = r"[^\w?\n]*[.!][^\w?\n]*\s(?:(?:hmm|no|wait|oops|actually|sorry|hold on)\W+)*"
MISLEADS = (
    "outdated|obsolete|expired|invalid|decoy|distractor|lie|trap|trick|fake|irrelevant|unrelated"
)
NEXT_IT_IS = "(?:that|this|it)(?: is| was|['’]s)"
DOES_NOT = (
    "(?:cannot|can['’]t|won['’]t|(?:do|does|did|can|could|would|should|must|will)(?: not|n['’]t))"
)
TAKES_BACK = re.compile(
    rf"{BEHIND}(?:wrong|incorrect|mistaken)\b"
    rf"|{BEHIND}\s{IS}(?:n['’]t| (?:an? |the |\w+ly )?(?:not|no|wrong|incorrect|false))\b"
    rf"|{BEHIND}\s{IT_IS} (?:\w+ly )?(?:wrong|incorrect|false|not {IT})\b"
    rf"|{BEHIND}\s(?:{IS} never|never {IS}|(?:has|have)(?: not|n['’]t| never) been) {IT}\b"
    rf"|{BEHIND}\s(?:cannot|can['’]t) be\b"
    rf"|{BEHIND}\s{DOES_NOT} (?:be {IT}|open|unlock|fit|work|match|belong|apply|answer)\b"
    rf"|{NEXT}{NEXT_IT_IS} (?:\w+ly )?(?:wrong|incorrect|false)\b"
    rf"|{NEXT}(?:{NEXT_IT_IS} not|(?:that|this|it) (?:is|was)n['’]t) {THE_ANSWER}\b"
    rf"|{BEHIND}\s{IS} (?:\w+ly )?(?:an? |the )?(?:\w+ )?(?:{MISLEADS})\b"
    rf"|{BEHIND}\s{IS} [^.!?\n]*\b(?:not (?:for|of)|(?:some(?:thing|one)|anything) else)\b"
    rf"|{BEHIND}\s(?:al)?though [^.!?\n]*\b(?:wrong|incorrect|false|not {IT})\b"
    rf"|{BEHIND}\s(?:has|have) been (?:replaced|superseded|changed|withdrawn)\b"
    r"|\W*[-–—]\W*no\b"
    rf"|{BEHIND}\sbelongs? to (?:another|an?other|a different|some(?:thing|one) else)\b"
    rf"|{BEHIND}(?:不是|不对|ではあ|ではな|じゃな|이? ?(?:아니|아닙))"
    r"|\W*\?\W*(?:no\b|not\b|hardly|never|i (?:do not|don['’]t))",
    re.I,
)

# What stands between values that are listed together: no letter or digit but these words.
LISTED = re.compile(
    r"(?:[\W_]|\b(?:and|or|but|then|also|now|plus|maybe|perhaps|possibly|as well as|vs|versus)\b"
    r"|和|或者?|与|及|、|または|と|や|그리고|또는)+",
    re.I,
)
NEXT_WORD = re.compile(r"\W*\w+")


def says(phrases: re.Pattern[str], text: str, start: int, end: int, question: str) -> bool:
    """Whether text[start:end] has one of the phrases, and not as the question itself has it."""
    found = phrases.finditer(text, start, end)
    return any(not is_echo(phrase, text, question) for phrase in found)


def is_echo(phrase: re.Match[str], text: str, question: str) -> bool:
    """Whether the question has the phrase and the next word too ("for wrong fox the code is")."""
    following = NEXT_WORD.match(text, phrase.end())
    said = text[phrase.start() : following.end()] if following else ""
    return bool(said) and said.casefold() in question.casefold()


def denied(text: str, start: int, values: Sequence[ValueRange], question: str) -> list[bool]:
    """Which of the values the text denies, from `start` on, where the sentence of the first begins.

    A denial holds for all that are listed after it, until a "but".
    """
    before: list[bool] = []
    for first, last in values:
        means = [found.end() for found in MEANS_NEXT.finditer(text, start, first)]
        goes_on = bool(before) and before[-1] and not means
        before.append(says(DENIES_NEXT, text, max([start, *means]), first, question) or goes_on)
        start = last
    return [either or other for either, other in zip(before, taken_back(text, values), strict=True)]


def taken_back(text: str, values: Sequence[ValueRange]) -> list[bool]:
    """Which of the values the words behind them take back; with one go those listed before it."""
    taken = [bool(TAKES_BACK.match(text, last)) for _, last in values]
    for i, ((_, last), (following, _)) in reversed(list(enumerate(pairwise(values)))):
        taken[i] |= taken[i + 1] and bool(LISTED.fullmatch(text[last:following]))
    return taken
