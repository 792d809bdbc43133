"""Answers that must not pass, by the property that makes them wrong."""

import datetime
from collections.abc import Iterator

import numpy as np

from niah.scoring.answer_values import Case
from tests.niah.scoring.right_answers import Asked, asked, templates_of

# Templates that say more than one value: a wrong one in place of {v} leaves the right one out.
DENIED = (
    "not {v}",
    "It is not {v}.",
    "It isn't {v}.",
    "It is not the {noun} {v}.",
    "The {noun} is not {v}.",
    "The {noun} for {key} is not {v}.",
    "The {noun} isn't {v}.",
    "The {noun} was never {v}.",
    "The {noun} is anything but {v}.",
    "The {noun} is no longer {v}.",
    "It cannot be {v}.",
    "It can't be {v}.",
    "never {v}",
    "I do not think it is {v}.",
    "I don't believe that the {noun} is {v}.",
    "I doubt that the {noun} is {v}.",
    "It is not true that the {noun} is {v}.",
    "It is false that the {noun} is {v}.",
    "It is unlikely that the {noun} is {v}.",
    "It would be wrong to say {v}.",
    "The wrong {noun} is {v}.",
    "{v} is wrong.",
    "{v} is not the {noun}.",
    "{v} is not correct.",
    "{v} is incorrect.",
    "{v} isn't the {noun} for {key}.",
    "{v} (wrong)",
    "{v}? No.",
    "{v}, which is wrong.",
    "{v}. That is wrong.",
    "{v}. This is not the {noun}.",
    "{v}. This is not correct.",
    "**{v}** is not the {noun}.",
    "Certainly! The {noun} is not {v}.",
    "Based on the text, the {noun} is not {v}.",
    "Not surprisingly, the {noun} is not {v}.",
    "It is not {other}. It is not {v}.",
    "It is neither {other} nor {v}.",
    "Neither {v} nor {other}.",
    "All but {v}.",
    "Anything except {v}.",
    "Some other {noun} than {v}",
    "The {noun} is {other}, not {v}.",
    "The {noun} is {other} rather than {v}.",
    "The {noun} is {other} instead of {v}.",
    "It is not {v}. It is {other}.",
    "It is not {v}, it is {other}.",
    "Not {v} but {other}.",
    "{v} is wrong, it is {other}.",
    "不是{v}。",
    "答案不是{v}。",
    "{v}不是答案。",
    "答えは{v}ではありません。",
    "No es {v}.",
    "La respuesta no es {v}.",
    "Es ist nicht {v}.",
    "Die Antwort ist nicht {v}.",
    "Ce n'est pas {v}.",
    "Non è {v}.",
    "Это не {v}.",
)
REFUSED = (
    "I don't know.",
    "The text does not mention the {noun} for {key}.",
    "There is no such {noun}.",
    "I could not find the {noun} for {key}.",
    "I'm sorry, but I cannot answer that.",
    "Unknown.",
    "N/A",
    "The {noun} for {key} is not given.",
    "Based on the text, there is no {noun} for {key}.",
    "The text does not mention it. {v}",
    "I don't know. {v}",
    "I cannot find it. {v}?",
    "根据文本，没有答案。",
)
TWO_VALUES = (
    "{v} or {other}",
    "{other} or {v}",
    "{v}, {other}",
    "{other}, {v}",
    "{v} and {other}",
    "{v} {other}",
    "{v}; {other}",
    "{v}\n{other}",
    "{other}\n{v}",
    "{v} / {other}",
    "{v} | {other}",
    "{v} - {other}",
    "{v} (or {other})",
    "{v} ({other})",
    "{v}, maybe {other}",
    "either {v} or {other}",
    "Either {other} or {v}.",
    "1. {v}\n2. {other}",
    "1. {other}\n2. {v}",
    "- {v}\n- {other}",
    "**{v}** or **{other}**",
    "**{other}**, **{v}**",
    '["{v}", "{other}"]',
    '"{v}", "{other}"',
    "`{v}`, `{other}`",
    "\\boxed{{{v}}} or \\boxed{{{other}}}",
    "\\boxed{{{v}, {other}}}",
    "The {noun} is {v} or {other}.",
    "The {noun} is {other} or {v}.",
    "The {noun} is {v} and {other}.",
    "The {noun} is either {v} or {other}.",
    "The {noun} could be {v}, or perhaps {other}.",
    "Certainly! The {noun}s are {v} and {other}.",
    "Based on the text, the {noun} is {v} or {other}.",
    "The {noun} is {other}. The {noun} is {v}.",
    "The {noun} is {v}. The {noun} is {other}.",
    "The answer is {v}. The answer is {other}.",
    "{v}. The {noun} is {other}.",
    "{v}. The answer is {other}.",
    "{v}\n\nThe answer is {other}.",
    "{v}\n\nFinal answer: {other}",
    "The {noun} is {v}. Wait, no, it is {other}.",
    "The {noun} is {v}. Actually, it is {other}.",
    "{v}. No, {other}.",
    "{v}... no, wait: {other}",
    "{v}, no, {other}",
    "{other}. Or {v}.",
    "{v}. Or perhaps {other}.",
    "{v}. Alternatively, {other}.",
    "It used to be {v}, now it is {other}.",
    "It was {v} and is now {other}.",
    "答案是{v}或{other}。",
    "答案是{v}和{other}。",
    "{v}或{other}",
    "{v}、{other}",
    "答えは{v}または{other}です。",
    "{other}\n</think>\n{v} or {other}",
    "{v}\n</think>\n{other}",
    "<think>{v}</think>{other}",
    "<think>The {noun} is {v}.</think>The {noun} is {other}.",
    "<think>The {noun} is {v}.",
    "<think>The {noun} is {v}.</think>",
    "{v}<think>",
    "<|channel|>analysis<|message|>It is {v}.<|end|>",
    "<|channel|>analysis<|message|>{v}<|end|><|start|>assistant<|channel|>final<|message|>{other}",
)
# Written after the rules, to see how they fare on what they were not made for.
MORE = (
    "{v}? I don't think so.",
    "It is certainly not {v}.",
    "One thing is certain: it is not {v}.",
    "By no means {v}.",
    "In no way is it {v}.",
    "The {noun} was changed from {v} to {other}.",
    "Formerly {v}, today {other}.",
    "Don't use {v}.",
    "Do not use {v}; use {other}.",
    "Avoid {v}.",
    "{v} is outdated.",
    "{v} is a decoy.",
    "{v} belongs to another key.",
    "{v} is the {noun} for red fox, not for {key}.",
    "{v} is the {noun} of something else.",
    "No {noun} is {v}.",
    "Nobody said {v}.",
    "It's definitely not {v}",
    "Everything else but {v}",
    "I refuse to say {v}.",
    "If it were {v}, it would fit, but it is {other}.",
    "First {v}, then {other}.",
    "{other} → {v}",
    "{v} → {other}",
    "{v} => {other}",
    "between {v} and {other}",
    "{v} vs {other}",
    "{v} versus {other}",
    "{v}+{other}",
    "{v}&{other}",
    "{v}\t{other}",
    "{v}...{other}",
    "{v}; no, {other}",
    "{v}, sorry, {other}",
    "{v}, I mean {other}",
    "{v}? {other}?",
    "{other}? {v}?",
    "{v}!!! {other}!!!",
    "**{v}** **{other}**",
    "- {v}\n\n- {other}",
    "a) {v}\nb) {other}",
    "A. {v}\nB. {other}",
    "(a) {v} (b) {other}",
    "Option 1: {v}\nOption 2: {other}",
    "Candidates: {v}, {other}",
    "Possible answers: {v}; {other}",
    "Answer: {v}\nAnswer: {other}",
    "\\boxed{{{v}}}\n\\boxed{{{other}}}",
    "Final answer: {v}. Final answer: {other}.",
    "The {noun} is {v}. Correction: {other}.",
    "The {noun} is {v}. Oops, that is wrong. It is {other}.",
    "The {noun} is {v}. I was mistaken: it is {other}.",
    "{v}. Hmm, no, that's not right. {other}.",
    "I first thought {v}, but it is {other}.",
    "It looks like {v}, but it's actually {other}.",
    "You may think that it is {v}, but the {noun} is {other}.",
    "Some say {v}. The {noun} is {other}.",
    "<think>{other}</think>{other}<think>{v}</think>",
    "{other}<|im_end|>{v}",
    "{other}<|endoftext|>{v}",
    "{other} {other} {other} {v}",
    "{v} {other} {v} {other} {v} {other}",
    "not {v} not {v} not {v}",
    "The {noun} isn't given, but red fox has {v}.",
    "N/A ({v})",
    "unknown; {v}?",
    "It's unclear whether it is {v}.",
    "I can't tell whether it is {v} or {other}.",
    "Hardly {v}.",
    "Das ist nicht {v}.",
    "Ne {v}",
    "Nie {v}",
    "nem {v}",
    "ei ole {v}",
    "{v}ではない",
    "{v}不对",
    "并不是{v}",
    "绝不是{v}",
    "不可能是{v}",
    "{v}이 아닙니다",
    "아니요, {v}",
    "ليس {v}",
    "ไม่ใช่ {v}",
    "não é {v}",
    "nunca {v}",
    "jamais {v}",
    "ninguno {v}",
    "It could not possibly be {v}.",
    "{v} would be incorrect.",
    "{v} was a trick.",
    "I'd rule out {v}.",
    "Anything other than {v}.",
    "It's never been {v}.",
    "{v}, though that's false.",
    "{v} - no!",
    "{v}, but I'm making this up; it's {other}.",
    "Choose {other} over {v}.",
    "Replace {v} with {other}.",
    "{v} has been replaced by {other}.",
    "Not sure: {v} or {other}",
    "Either of {v} / {other}",
    "{other} (not {v})",
    "{other}, formerly {v}",
    "I see {v} and also {other}.",
    "The {noun} of red fox is {v}; that of {key} is {other}.",
    "{key} has {other}; red fox has {v}.",
    "{other}{v}",
    "{other}_{v}",
    "{v}\n\n{other}\n\n{other}",
    "{v}, {v}, {other}",
    "The {noun} isn't {other}, nor {v}.",
    "{v}. Scratch that: {other}",
    "{v}. On second thought, {other}.",
    "{v}. Sorry, I meant {other}.",
    "~~{v}~~ {other}",
    "~~{v}~~",
    "<del>{v}</del> {other}",
)
DUMPS = (
    "{key}: {v}, red fox: {other}, grey owl: {third}",
    "{key} {v} red fox {other} grey owl {third}",
    "red fox {other} {key} {v} grey owl {third}",
    "{key}={v}, red fox={other}",
    "{key}={v}; red fox={other}; grey owl={third}",
    "{key}: {v}; red fox: {other}",
    "{key}: {v}\nred fox: {other}\ngrey owl: {third}",
    "red fox: {other}\n{key}: {v}\ngrey owl: {third}",
    "- {key}: {v}\n- red fox: {other}\n- grey owl: {third}",
    "1. {key}: {v}\n2. red fox: {other}",
    '{{"{key}": "{v}", "red fox": "{other}"}}',
    '{{\n  "{key}": "{v}",\n  "red fox": "{other}"\n}}',
    "| {key} | {v} |\n| red fox | {other} |",
    "{v}, {other}, {third}",
    "{third} {other} {v}",
    "{v} {other} {third}",
    "{other}; {v}; {third}",
    "{v}\n{other}\n{third}",
    "1. {other}\n2. {v}\n3. {third}",
    "The {noun} for {key} is {v} and the {noun} for red fox is {other}.",
    "Here are all the {noun}s: {v}, {other}, {third}.",
    "The text mentions {v}, {other} and {third}.",
    "Certainly! The text mentions the {noun}s {other}, {v} and {third}.",
    "The {noun}s in the text are **{other}**, **{v}**, **{third}**.",
    "{key}:{v},red fox:{other}",
)
LONGER = {
    "number": (
        *("1{v}", "{v}1", "{v}.5", "x{v}", "{v}th", "{v}-99", "99-{v}", "{v}_77", "{v}:77"),
        *(
            "77:{v}",
            "#{v}-A",
            "{v}{v}",
            "{v}000",
            "{v},000",
            "000,{v}",
            "{v}.{v}",
            "{v}/7",
            "7/{v}",
        ),
        *("9{v}9", "A{v}", "{v}B", "1.{v}", "{v}%2", "0x{v}", "{v}e5"),
    ),
    "sum": ("EUR {v}0", "EUR {comma},000", "EUR {v}.50", "EUR 1{v}", "EUR {comma}.99", "{v}k"),
    "word": ("{v}xyz", "un{v}", "{v}-xyz", "xyz-{v}", "{v}_limit", "{v}2", "my{v}"),
    "phrase": ("{v} Tower", "New {v}", "{v}s", "x{v}", "The name is {v} Tower."),
    "uuid": ("{v}0", "a{v}", "{v}-00", "00-{v}", "{joined}0", "0{joined}", "{v}{v}"),
    "date": ("{v}-01", "1{v}", "{v}1", "{v}T12:34:56", "{v} to 1999-01-01"),
    "identifier": ("{v}_EXTRA", "X{v}", "{v}2", "my.{v}x", "NOT_{v}"),
    "version": ("{v}.1", "1.{v}", "{v}-dev", "{v}9", "9{v}"),
}
NOTHING = ("", " ", "\n", "?!…", "**", "```\n```", "\\boxed{{}}", "<think></think>", "Answer:")


def near_misses(value: str, rng: np.random.Generator, n: int) -> list[str]:
    """The value with a character changed, dropped, added, or two swapped."""
    made: dict[str, None] = {}
    while len(made) < n:
        at = int(rng.integers(len(value)))
        new = "0123456789abcdefghij"[int(rng.integers(10 if value[at].isdigit() else 20))]
        kinds = (
            value[:at] + new + value[at + 1 :],
            value[:at] + value[at + 1 :],
            value[:at] + new + value[at:],
            value[:at] + value[at : at + 2][::-1] + value[at + 2 :],
        )
        wrong = kinds[int(rng.integers(4))]
        if differs(wrong, value):
            made[wrong] = None
    return list(made)


def differs(wrong: str, value: str) -> bool:
    """Whether it is another value however it is written; a wrong date is still a date."""
    letters = ["".join(filter(str.isalnum, text.casefold())).lstrip("0") for text in (wrong, value)]
    return letters[0] != letters[1] and (not is_date(value) or is_date(wrong))


def is_date(value: str) -> bool:
    try:
        return len(value) == 10 and bool(datetime.date.fromisoformat(value))
    except ValueError:
        return False


def wrong_answers(name: str, seeds: int = 2) -> Iterator[tuple[str, Case]]:
    """Every property's answers about questions of a format, with the property's name."""
    for seed in range(seeds):
        question = asked(name, seed)
        for kind, answer in said(question, np.random.default_rng([seed, 1])):
            yield kind, question.case(answer)


def said(question: Asked, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    gold, (other, third, *_) = question.gold, question.rivals
    for template in DENIED:
        yield "denied", question.answer(template)
    for template in REFUSED:
        yield "refused", question.answer(template)
    invented = asked(question.name, 99).gold
    for template in TWO_VALUES + MORE:
        for beside in (other, invented):
            yield "two values", question.answer(template, other=beside)
    for template in DUMPS:
        filled = template.replace("{third}", third.replace("{", "{{"))
        yield "dump", question.answer(filled)
    for template in LONGER[question.name]:
        yield "inside something longer", question.answer(template)
    for template in NOTHING:
        yield "nothing", template.format()
    yield "nothing", question.case("").question
    both = tuple(template for template in templates_of(question.name) if "{other}" in template)
    for template in templates_of(question.name):
        beside = gold if template in both else third
        yield "another needle's", question.answer(template, other, beside)
        yield "invented", question.answer(template, invented, beside)
        for wrong in near_misses(gold, rng, 2):
            yield "near miss", question.answer(template, wrong, beside)
    for end in range(1, len(gold)):
        yield "cut", gold[:end]
