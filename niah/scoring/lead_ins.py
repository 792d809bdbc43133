"""The words that lead to a value in a sentence and are none, and where a statement names it.

Each table is a list of words. A word that is the answer to this or to another question about the
context counts as a value all the same.
"""

import re
from collections.abc import Collection

# Words that carry a value.
CARRIER_WORDS = """
    a an the this that these those it its he his she her they their there here i we you my your
    me our is are was were be been being am has have had do does did i'm i’m you're you’re
    you'll you’ll vs versus will would shall should must may might can could let let's let’s us
    please isn't isn’t wasn't wasn’t doesn't doesn’t it's it’s that's that’s i'd i’d i've i’ve
    here's here’s there's there’s key not never neither nor except rather other than instead but
    else either no and or also then so as of for to in on at by with from about into through
    answer value code word words number identifier name date sum amount term result output
    response solution called named known said says say saying given gives listed stated states
    reads read mentioned mentions contains shows text sentence passage document context record
    what which who whom whose where how when yes sure well okay ok please believe think remember
    recall know see one two three four five six seven eight nine ten all both each any another
    only following first second third fourth fifth last final finally correct right exact
    relevant actual secret requested best guess paragraph page line section chapter verse once
    whole entire full many things q just simply exactly found find appears appear seems seem
    looking asked return returns
"""
FOREIGN_CARRIER_WORDS = """
    la el es las los die der das lautet ist le est è é il o это
    réponse respuesta antwort risposta resposta ответ odpowiedź cevap código đáp án là
    答案是 答案为 答案 是 的 不是 并不是 答えは です
    정답은 답은 입니다
"""
CARRIERS = frozenset((CARRIER_WORDS + FOREIGN_CARRIER_WORDS).split())

# A sentence or clause of these alone answers nothing.
OPENER_WORDS = """
    certainly surely absolutely definitely course great good nice interesting question questions
    thank thanks asking happy glad help hello hi hey greetings hmm hm alright right therefore
    thus hence clearly indeed obviously evidently apparently basically actually really
    specifically undoubtedly unquestionably unsurprisingly surprisingly fortunately ultimately
    probably likely possibly presumably perhaps maybe honestly frankly precisely correctly
    understood got sorry apologies confusion thing problem worries doubt simple easy short put
    quick summary conclusion note further ado without
"""
OPENERS = frozenset(OPENER_WORDS.split())

# A clause that begins with one of these says where the answer comes from, or what was done.
SOURCE_WORDS = """
    based according looking going judging reading searching scanning reviewing checking after
    before having upon given as when while since because per within under searched checked
    looked reviewed finding regarding concerning below above
"""
SOURCES = frozenset(SOURCE_WORDS.split())
FILLERS = CARRIERS | OPENERS | SOURCES
# Before the first word of a clause that has no bearing on the answer stands one of these.
SUBJECT_WORDS = """
    i we you they he she i'd i’d i've i’ve i'm i’m you're you’re let let's let’s me us in on at
    by with from to for of about into through have has had do did can could will would should
    must mentioned given stated listed
"""
SUBJECTS = frozenset(SUBJECT_WORDS.split())
TEXTS = frozenset({"text", "sentence", "passage", "document", "context", "record"})

DETERMINERS = frozenset(("a", "an", "the", "my", "its", "this", "that"))

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
CLAUSE_END = re.compile(r"[.!?;:,()\n|]|\s[-–—]+\s|->|→")
STATEMENT_START = re.compile(r"[.!?;:,()\n|“]|\s[-–—]+\s|\b(?:that|and|so|but|then)\b", re.I)
LONGEST_STATEMENT = 300  # characters before a value that are looked at
NOUN_PHRASE = re.compile(r"\b(?:the|its?)\b", re.I)
BEHIND_CUE = r"(?:\W|\b(?:the|an?|simply|just|exactly|likely|probably|now|actually)\b)*$"
CUE = re.compile(
    r"(?:\b(?:is|are|was|were|be|been|it['’]s|that['’]s|called|named|reads|says?"
    r"|(?:given|listed|known|stated|noted|written|recorded|registered) as"
    r"|looking for|lautet|ist|es|est|è)\b|[:=→]|->)" + BEHIND_CUE,
    re.I,
)
VALUE_NOUNS = r"(?:answer|value|code|word|number|identifier|name|date|sum|amount|term|result)s?"
NAMES_IT = re.compile(rf"\b{VALUE_NOUNS}\b|\b(?:it|that)(?: is| was|['’]s| must| should)", re.I)
RESUMES = re.compile(
    r"(?:^|[.!?;,…\n])\W*(?:no|wait|actually|correction|alternatively|or|rather|sorry|hmm|oops"
    r"|scratch that|on second thoughts?|i mean(?:t)?|final answer|answer)\b[^.!?\n]*$",
    re.I,
)
MARKED = re.compile(r"(?:\*\*|[`\"“«{])\W*$")


def words(text: str) -> list[str]:
    return [found[0].casefold() for found in WORD.finditer(text)]


def clauses(text: str) -> list[str]:
    return [clause for clause in CLAUSE_END.split(text) if clause.strip()]


def leads_in(text: str, asked: Collection[str]) -> bool:
    """Whether all clauses of the text before a value only introduce it.

    `asked`: the words of the question.
    """
    return all(is_introduction(words(clause), asked) for clause in clauses(text))


def is_talk(text: str, asked: Collection[str]) -> bool:
    """Whether no clause of the text could be an answer: a word or two alone, or how one begins.

    Enough before a statement, which says itself what it speaks of.
    """
    if re.match(r"\s*[a-z]", text) and not leads_in(clauses(text)[0], asked):
        return False
    return not any(is_fragment(words(clause), asked) for clause in clauses(text))


def is_fragment(clause: list[str], asked: Collection[str]) -> bool:
    own = [word for word in clause if not is_filler(word, asked)]
    return 0 < len(own) < 3 and len(own) == len([w for w in clause if w not in DETERMINERS])


def is_introduction(clause: list[str], asked: Collection[str]) -> bool:
    """Whether the words of a clause offer no value: fillers, a source, or a person who does."""
    own = next((at for at, word in enumerate(clause) if not is_filler(word, asked)), None)
    if own is None or clause[0] in SOURCES:
        return True
    before = clause[:own]
    if not before:
        return False
    is_noun = before[-1] in asked or bool(re.fullmatch(VALUE_NOUNS, before[-1]))
    if clause[own].endswith(("ed", "ing", "s")) and is_noun:
        return True  # "the word associated with ...", "amber falcon carries the word"
    return before[-1] in SUBJECTS or not TEXTS.isdisjoint(before)


def is_filler(word: str, asked: Collection[str]) -> bool:
    return word in FILLERS or word in asked or word.isdigit()


def states(text: str, start: int, asked: Collection[str]) -> bool:
    """Whether the text up to `start` says of what is asked that it is what follows.

    As in "..., the word is": no other word stands between the beginning of the statement and its
    end. Where that is a noun phrase, it names what is asked.
    """
    text = text[max(0, start - LONGEST_STATEMENT) : start]
    if not CUE.search(text):
        return False
    starts = [found.end() for found in STATEMENT_START.finditer(text)]
    clause = text[max((at for at in starts if words(text[at:])), default=0) :]
    phrases = [clause[found.start() :] for found in NOUN_PHRASE.finditer(clause)]
    about = [phrase for phrase in phrases if names_asked(phrase, asked)]
    return any(all(is_filler(w, asked) for w in words(said)) for said in (clause, *about))


def names_asked(text: str, asked: Collection[str]) -> bool:
    """Whether it speaks of the value: by such a noun, a word of the question, or "it is"."""
    own = (word for word in words(text) if word in asked and word not in CARRIERS)
    return bool(NAMES_IT.search(text)) or any(own)
