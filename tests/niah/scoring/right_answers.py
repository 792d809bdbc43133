"""Right answers as models that talk write them: templates times values, by answer format.

`{v}` is the value, `{other}` another needle's value, `{key}` and `{noun}` are those of the
question. The same templates with the wrong values are part of the adversarial set.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from haystacks.needles import values
from niah.scoring.answer_values import Case

BARE = (
    "{v}",
    " {v}.",
    "\n\n{v}",
    "\n \n{v}\n",
    "**{v}**",
    "*{v}*",
    "`{v}`",
    '"{v}"',
    "'{v}'",
    "“{v}”",
    "```\n{v}\n```",
    "```text\n{v}\n```",
    "```python\n{v}\n```",
    "\\boxed{{{v}}}",
    "$\\boxed{{{v}}}$",
    "$$\\boxed{{\\text{{{v}}}}}$$",
    "1. {v}",
    "1) {v}",
    "- {v}",
    "• {v}",
    "{v} [1]",
    "{v}[1].",
    "{v} [1][2]",
    "{v}【4†source】",
    "<answer>{v}</answer>",
    "<answer>\n{v}\n</answer>",
    "<b>{v}</b>",
    "# Answer\n{v}",
    "### {v}",
    "> {v}",
)
LABELLED = (
    "Answer:{v}",
    "Answer: {v}",
    "**Answer:** {v}",
    "**Answer**: {v}",
    "Final answer: {v}",
    "**Final Answer:** **{v}**",
    "A: {v}",
    "{Noun}:{v}",
    "{Noun}: {v}",
    "My answer: {v}",
    "Quick answer: {v}",
    "In short: {v}",
    "Result = {v}",
    "Output: {v}",
    "{key}: {v}",
    "{key} = {v}",
    "{Key} -> {v}",
    "{Key} → {v}",
    "**{Noun} for {key}:** {v}",
    '{{"{noun}": "{v}"}}',
    '{{"answer": "{v}"}}',
    '{{\n  "key": "{key}",\n  "{noun}": "{v}"\n}}',
    '```json\n{{"answer": "{v}"}}\n```',
    "Question: What is the {noun} for {key}?\nAnswer: {v}",
    "Q: What is the secret {noun} for {key}?\nA: {v}",
    "| {key} | {v} |",
)
STATED = (
    "The {noun} is {v}.",
    "the {noun} is {v}",
    "The {noun} is **{v}**.",
    "The {noun} is: {v}",
    "The {noun} is:\n\n{v}",
    "The {noun} is `{v}`.",
    'The {noun} is "{v}".',
    "The {noun} for {key} is {v}.",
    "The secret {noun} for {key} is {v}.",
    "The secret {noun} for {Key} is **{v}**.",
    "It is {v}.",
    "It's {v}!",
    "That would be {v}.",
    "That is {v}.",
    "This is {v}.",
    "The answer is {v}.",
    "The correct answer is {v}.",
    "The right answer is: {v}",
    "The answer to your question is {v}.",
    "The {noun} associated with {key} is {v}.",
    "The {noun} has been given as {v}.",
    "The {noun} is given as {v}.",
    "The {noun} is listed as {v} in the text.",
    "The {noun} reads {v}.",
    "The {noun} appears to be {v}.",
    "The {noun} should be {v}.",
    "The {noun} must be {v}.",
    "It says {v}.",
    "{v} is the {noun} for {key}.",
    "{v} is the answer.",
    "{v} is what you are looking for.",
    '"{v}" is the {noun} mentioned in the text.',
    "The {noun} {v} is registered for {key}.",
    "{v}. This is stated in the text.",
    "{v}\n\nThis {noun} was given in the passage about {key}.",
    "{v} (as stated in the text)",
    "{v}, according to the text.",
    "{v}, which is stated in the middle of the passage.",
)
TALKATIVE = (
    "Certainly! The {noun} is {v}.",
    "Certainly! The secret {noun} for {key} is **{v}**.",
    "Sure! The {noun} for {key} is **{v}**.",
    "Sure, here is the {noun}: {v}",
    "Sure thing! {v}",
    "Of course. The {noun} you are looking for is {v}.",
    "Of course! It's {v}.",
    "Absolutely! It's {v}.",
    "Yes, the {noun} is {v}.",
    "Okay, so the {noun} for {key} is {v}.",
    "Alright, the {noun} is {v}.",
    "Well, the {noun} is {v}.",
    "Hmm, I think the {noun} is {v}.",
    "Great question! The {noun} for {key} is {v}.",
    "Good question. The {noun} is {v}.",
    "Thank you for the question. The {noun} is {v}.",
    "Thanks for asking! The {noun} is {v}.",
    "I'd be happy to help! The {noun} is {v}.",
    "Happy to help: the {noun} is {v}.",
    "Hello! The {noun} is {v}.",
    "Here is the {noun}: {v}",
    "Here is the {noun} for {key}:\n\n**{v}**",
    "Here's the answer: {v}",
    "Here you go: {v}",
    "Here it is: {v}.",
    "I believe the {noun} is {v}.",
    "I think it's {v}.",
    "I would say {v}.",
    "I remember that the {noun} is {v}.",
    "So the {noun} is {v}.",
    "Therefore, the {noun} is {v}.",
    "Thus, the answer is {v}.",
    "Hence the {noun} is {v}.",
    "Clearly, the {noun} is {v}.",
    "Indeed, the {noun} is {v}.",
    "Simply put, the {noun} is {v}.",
    "It seems that the {noun} is {v}.",
    "You are looking for {v}.",
    "You're looking for the {noun} {v}.",
    "The {noun} I found is {v}",
    "The {noun} you asked about is {v}.",
    "The {noun} you're looking for is {v}.",
    "To answer your question, the {noun} is {v}.",
    "To answer your question: {v}.",
    "There is only one {noun} for {key}: {v}.",
    "They said it was {v}.",
    "Let me see... the {noun} is {v}.",
)
SOURCED = (
    "Based on the text, the {noun} is {v}.",
    "Based on the text, {v}.",
    "Based on the provided context, the {noun} for {key} is {v}.",
    "Based on the information given in the passage, the secret {noun} for {key} is **{v}**.",
    'According to the passage, the {noun} for {key} is "{v}".',
    "According to the text above: {v}",
    "According to the document, it is {v}.",
    "According to the record, {key} has the {noun} {v}.",
    "From the text: {v}.",
    "From the passage, we learn that the {noun} is {v}.",
    "In the text, it says that the {noun} for {key} is {v}.",
    "In the text the {noun} is {v}.",
    "The text states that the {noun} for {key} is {v}.",
    "The text clearly says that the {noun} is {v}.",
    "The passage mentions that the {noun} of {key} is {v}.",
    "The document tells us that the {noun} is {v}.",
    'The text says: "The secret {noun} for {key} is {v}."',
    "“The secret {noun} for {key} is {v}.”",
    "The relevant sentence is: The secret {noun} for {key} is {v}.",
    "As stated in the document, the {noun} is {v}.",
    "As mentioned in paragraph 12, the {noun} is {v}.",
    "As the text says, the {noun} is {v}.",
    "In paragraph 12 the {noun} is given as {v}.",
    "In chapter 3, verse 16, the {noun} is given as {v}.",
    "On page 3 of the document, the {noun} for {key} is {v}.",
    "After reading the text carefully, I found that the {noun} for {key} is {v}.",
    "Having searched the passage, I can say that the {noun} is {v}.",
    "I found it: {v}.",
    "I found the {noun}: {v}",
    "I found the {noun} in the text. It is {v}.",
    "Let me look at the text. The {noun} for {key} is {v}.",
    "I have read the whole passage. The {noun} for {key} is {v}.",
    "Looking at the text, the {noun} is {v}.",
    "Looking through the passage, I see that the {noun} for {key} is {v}.",
    "I searched the text and found that {key} has the {noun} {v}.",
    "The secret {noun} for {key}, as mentioned in the text, is {v}.",
    "The text mentions many things, but the {noun} for {key} is {v}.",
    "The {noun} for {key} is mentioned once in the text. It is {v}.",
    "> The secret {noun} for {key} is {v}.\n\nSo the answer is {v}.",
)
NEGATED = (
    "Not surprisingly, the {noun} is {v}.",
    "Unsurprisingly, the {noun} is {v}.",
    "If I am not mistaken, the {noun} is {v}.",
    "If I'm not wrong, it is {v}.",
    "No problem! The {noun} is {v}.",
    "No doubt about it: {v}.",
    "Without a doubt, the {noun} is {v}.",
    "I am not completely sure, but I think it is {v}.",
    "The {noun} is none other than {v}.",
    "I did not find any other {noun}. The {noun} is {v}.",
    "I can't find any other {noun}. The {noun} is {v}.",
    "I cannot find any other mention. It is {v}.",
    "I was unable to find anything else: {v}.",
    "Sorry for the confusion! The {noun} is {v}.",
    "It is not {other}. It is {v}.",
    "It is not {other}, it is {v}.",
    "It's not {other}, but {v}.",
    "It isn't {other}. The {noun} is {v}.",
    "The {noun} is not {other}; it is {v}.",
    "Not {other} but {v}.",
    "The {noun} is {v}, not {other}.",
    "The {noun} is {v} rather than {other}.",
)
FOREIGN = (
    "答案是{v}。",
    "答案：{v}",
    "答案:{v}",
    "答案是“{v}”。",
    "答案为{v}",
    "根据文本，答案是{v}。",
    "答えは{v}です。",
    "답은 {v}입니다.",
    "La respuesta es {v}.",
    "Die Antwort lautet {v}.",
    "La réponse est {v}.",
    "Ответ: {v}",
)
THOUGHT = (
    "<think>\nThere is {other} somewhere. I look for {key}.\n</think>\n\n{v}",
    "<think>Is it {other}? No.</think>The {noun} is {v}.",
    "Is it {other}? No, I do not think so.\n</think>\n\n{v}",
    "[THINK]{other} or {v}?[/THINK]{v}",
    "<|channel|>analysis<|message|>{other}?<|end|><|start|>assistant<|channel|>final<|message|>{v}",
)
# Written after the rules, to see how they fare on what they were not made for.
MORE = (
    "I'd say the {noun} is {v}.",
    "My best guess is {v}.",
    "The {noun} we need is {v}.",
    "You'll find that the {noun} is {v}.",
    "Got it. {v}.",
    'The passage contains this line: "The secret {noun} for {key} is {v}." So the {noun} is {v}.',
    "**{v}** is the secret {noun} for {key}.",
    "{Key}'s {noun} is {v}.",
    "For {key}, the {noun} is {v}.",
    "For {key}: {v}",
    "Regarding {key}, the text gives {v}.",
    "As per the text: {v}",
    "Per the document, the {noun} is {v}.",
    "The {noun} = {v}",
    "the answer: {v}",
    "ANSWER: {v}",
    "Solution: {v}",
    "Response: {v}",
    "The requested {noun}: {v}",
    "Secret {noun}: {v}",
    "The {noun} in question is {v}.",
    "The {noun} that you want is {v}.",
    "Its {noun} is {v}.",
    "One can read that the {noun} is {v}.",
    'The text explicitly states: "The secret {noun} for {key} is {v}."',
    "After searching, I can confirm the {noun} is {v}.",
    "I can confirm that the {noun} for {key} is {v}.",
    "Let me find it. Found it! The {noun} is {v}.",
    "Sure! Here's what I found: {v}",
    "Ok. {v}",
    "OK: {v}",
    "Well, {v}.",
    "Yes. {v}",
    "Right, it is {v}.",
    "🎉 The {noun} is {v}!",
    "✅ {v}",
    "→ {v}",
    "➡️ {v}",
    "{v} ✓",
    "{v}\n\nLet me know if you need anything else!",
    "{v}\n\nIs there anything else I can help with?",
    "The {noun} is {v}. Let me know if you have any other questions!",
    "{v}. I hope this helps!",
    "The {noun} is {v}. It is not {other}.",
    "{v} - this is the {noun} for {key}.",
    "{v} — as the text says.",
    "[{v}]",
    "({v})",
    "<{v}>",
    "{{{v}}}",
    "“{v}”.",
    "„{v}“",
    "«{v}»",
    "~~~\n{v}\n~~~",
    "*Answer:* {v}",
    "<code>{v}</code>",
    "<p>{v}</p>",
    "<answer>The {noun} is {v}.</answer>",
    "{v}<|im_end|>",
    "{v}</s>",
    "{v}<|endoftext|>Human: next question {other}",
    "The final answer is \\boxed{{{v}}}.",
    "\\[\\boxed{{{v}}}\\]",
    "The {noun} is \\(\\text{{{v}}}\\).",
    "Thinking about it, the {noun} is {v}.",
    "Hello there! The {noun} is {v}.",
    "Interesting question! It is {v}.",
    "You asked for the {noun} of {key}. It is {v}.",
    "The user asks for the {noun}. The {noun} is {v}.",
    "We are asked for the {noun} for {key}. The text says it is {v}.",
    'We need to find the {noun}. In the text: "The secret {noun} for {key} is {v}." Answer: {v}',
    "There's a sentence in the text: The secret {noun} for {key} is {v}.",
    "Somewhere in the middle, the text says that the {noun} is {v}.",
    "Near the end of the text, the {noun} is given: {v}.",
    "I am confident that the {noun} is {v}.",
    "I'm pretty sure it's {v}.",
    "I can see that the {noun} for {key} is {v}.",
    "Without further ado: {v}",
    "It was {v}.",
    "It's: {v}",
    "That's {v}.",
    "Le code est {v}.",
    "El código es {v}.",
    "Der Code ist {v}.",
    "Odpowiedź: {v}",
    "Cevap: {v}",
    "代码是{v}",
    "密码是：{v}",
    "是{v}",
    "정답: {v}",
    "Đáp án là {v}",
    "الجواب: {v}",
    "คำตอบคือ {v}",
    "คำตอบคือ{v}",
    "The {noun} for {key} isn't hard to find: {v}.",
    "I have no doubt: the {noun} is {v}.",
    "It's none other than {v}.",
    "The {noun}, unless I missed something, is {v}.",
    "Don't worry, the {noun} is {v}.",
    "I won't keep you waiting: {v}.",
    "Looks like the {noun} is {v}.",
    "The {noun} linked to {key} is {v}.",
    "As far as I can tell, the {noun} is {v}.",
    "Going by the text, {key} carries the {noun} {v}.",
    "The text assigns the {noun} {v} to {key}.",
    "{v} — found in the second half of the text.",
    "The {noun} for {key} was {v}, per the text.",
    "All right: {v}",
    "Simple: {v}.",
    "Thanks! The {noun} you requested is {v}.",
    "In the given passage, the secret {noun} for {key} is stated to be {v}.",
    "The secret {noun} for {key} can be found in the text: {v}.",
    "From what I read, it is {v}.",
    "I've located the {noun}: {v}.",
    "The {noun} corresponding to {key} is {v}.",
    "Here is your {noun}: {v}",
    "The only {noun} mentioned for {key} is {v}.",
    "My response is {v}.",
    "The {noun} registered under {key} is: {v}.",
    "Below is the {noun}.\n\n{v}",
    "## Result\n\n- {Noun}: {v}",
    "Key: {key}\n{Noun}: {v}",
    "The {noun} (for {key}) is {v}.",
    "It turns out the {noun} is {v}.",
    "The passage gives {key} the {noun} {v}.",
    "According to page 4 (line 12), the {noun} is {v}.",
    "Mystery solved: {v}!",
    "Looking at line 245 of the text, I see: {v}",
    "Well... {v}.",
    "{v} :)",
    "{v} 😀",
    "Die gesuchte Zahl ist {v}.",
    "文中提到{key}的密码是{v}。",
)
TEMPLATES = BARE + LABELLED + STATED + TALKATIVE + SOURCED + NEGATED + FOREIGN + THOUGHT + MORE


class Format(NamedTuple):
    """What is asked, and forms of the value that no other format has."""

    answer_format: str
    noun: str
    question: str
    templates: tuple[str, ...] = ()


QUESTION = " What is the secret {noun} for {key}? The secret {noun} for {key} is"
SUM = (
    " How much is the Retention Sum under the {Key} Agreement? The Retention Sum under the {Key} "
    "Agreement is EUR"
)
FORMATS = {
    "number": Format(
        "number",
        "code",
        QUESTION,
        (
            "The code has 5 digits: {v}",
            "The 5-digit code is {v}",
            "{comma}",
            "Code #{v}",
            "The code is {comma}.",
            "The code consists of 5 digits and is {v}.",
            "There are 2 mentions of {key}; the code is {v}.",
            "Step 1: find {key}. Step 2: read the code. The code is {v}.",
            "{v}¹",
        ),
    ),
    "sum": Format(
        "number",
        "sum",
        SUM,
        (
            "EUR {comma}.00",
            "€{comma}",
            "€ {comma}.00",
            "EUR{v}",
            "{comma} EUR",
            "{comma} euros",
            "{v} €",
            "{dot},00 EUR",
            "{dot} EUR",
            "The sum is EUR {comma}.00, payable on completion.",
            "The Retention Sum under the {Key} Agreement is EUR {comma}.",
            "Certainly! The amount is **€{comma}.00**.",
            "The amount is EUR {spaced}.",
        ),
    ),
    "word": Format(
        "word", "word", QUESTION, ("{V}", "{V}.", "The word is {V}.", "The word is 'the {v}'.")
    ),
    "phrase": Format("word", "name", QUESTION, ("{lower}", "The name is {lower}.")),
    "uuid": Format(
        "uuid",
        "identifier",
        QUESTION,
        (
            "{upper}",
            "{joined}",
            "{{{v}}}",
            "urn:uuid:{v}",
            "UUID:{v}",
            "The UUID is {upper}.",
        ),
    ),
    "date": Format(
        "date",
        "date",
        QUESTION,
        (
            "{long}",
            "{american}",
            "The date is {long}.",
            "The date is {american}.",
            "on {ordinal}",
            "{slashed}",
            "{german}",
            "{chinese}",
            "{v}T00:00:00",
            "Friday, {long}",
            "{short}",
        ),
    ),
    "identifier": Format(
        "constant", "constant", QUESTION, ("LIMIT = {v}", "return {v}", "{v}()", "{v};")
    ),
    "version": Format("version", "version", QUESTION, ("v{v}", "version {v}", "Version {v}.")),
}
NAMES = ("Porto Vecchio", "Santa Maria Novella", "red silver lantern", "Lake Geneva", "Hull & Sons")
IDENTIFIERS = ("MAX_RETRIES", "parse_header", "HttpClient", "limits.max_size", "_cache2")
VERSIONS = ("2.13.4", "0.9.1", "10.0.17", "3.11.0rc1", "1.4.2-beta.3")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)


def draw(name: str, rng: np.random.Generator) -> list[str]:
    """Five values of a format."""
    fixed = {"phrase": NAMES, "identifier": IDENTIFIERS, "version": VERSIONS}
    if name in fixed:
        return [str(value) for value in rng.permutation(fixed[name])]
    drawn = {"number": values.number, "sum": values.number, "word": values.word}
    drawn |= {"uuid": values.uuid4, "date": values.date}
    return values.distinct(drawn[name], rng, "train", 5)


class Asked(NamedTuple):
    """A question of a format: its key, its value, and those of other needles."""

    name: str
    key: str
    gold: str
    rivals: tuple[str, ...]

    @property
    def format(self) -> Format:
        return FORMATS[self.name]

    def answer(self, template: str, value: str | None = None, other: str | None = None) -> str:
        """The template filled in: with the gold value and a rival unless others are given."""
        value, other = value or self.gold, other or self.rivals[0]
        fields = {"v": value, "other": other, "V": value.capitalize(), "key": self.key}
        fields |= {"Key": self.key.title(), "noun": self.format.noun}
        fields |= {"Noun": self.format.noun.title(), "lower": value.casefold()}
        return template.format(**fields, **written_otherwise(self.name, value))

    def case(self, answer: str) -> Case:
        question = self.format.question.format(
            key=self.key, Key=self.key.title(), noun=self.format.noun
        )
        return Case(
            answer,
            (self.gold,),
            self.format.answer_format,
            rivals=self.rivals,
            context=lambda: "And it came to pass in the days of 1611 that the ships went out.",
            question=question,
        )


def written_otherwise(name: str, value: str) -> dict[str, str]:
    """Other spellings of a number, a date or a UUID; empty texts where they are none."""
    if name in ("number", "sum") and value.isdigit():
        comma = f"{int(value):,}"
        return {mark: comma.replace(",", joint) for mark, joint in JOINTS.items()}
    if name == "uuid":
        return {"upper": value.upper(), "joined": value.replace("-", "")}
    if name == "date" and value.count("-") == 2:
        year, month, day = map(int, value.split("-"))
        named = MONTHS[(month - 1) % 12]
        ending = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
        return {
            "long": f"{day} {named} {year}",
            "american": f"{named} {day}, {year}",
            "ordinal": f"the {day}{ending} of {named} {year}",
            "slashed": f"{year}/{month:02}/{day:02}",
            "german": f"{day:02}.{month:02}.{year}",
            "chinese": f"{year}年{month}月{day}日",
            "short": f"{named[:3]} {day}, {year}",
        }
    return {}


JOINTS = {"comma": ",", "dot": ".", "spaced": " "}


def asked(name: str, seed: int) -> Asked:
    rng = np.random.default_rng([seed, *map(ord, name)])
    gold, *rivals = draw(name, rng)
    return Asked(name, values.two_words(rng, "train"), gold, tuple(rivals))


def templates_of(name: str) -> tuple[str, ...]:
    return TEMPLATES + FORMATS[name].templates


def right_answers(name: str, seeds: int = 4) -> Iterator[tuple[Asked, str, str]]:
    """Questions of a format, each with a template and the right answer that it makes."""
    for seed in range(seeds):
        question = asked(name, seed)
        for template in templates_of(name):
            yield question, template, question.answer(template)


SEVERAL = (
    "{0}, {1}, {2}",
    " {0}, {1} and {2}.",
    "{0}\n{1}\n{2}",
    "1. {0}\n2. {1}\n3. {2}",
    "1) {0}\n2) {1}\n3) {2}",
    "1. {0}, 2. {1}, 3. {2}",
    "(1) {0} (2) {1} (3) {2}",
    "- {0}\n- {1}\n- {2}",
    "* **{0}**\n* **{1}**\n* **{2}**",
    "1. **{0}**\n2. **{1}**\n3. **{2}**",
    "[{0}, {1}, {2}]",
    '["{0}", "{1}", "{2}"]',
    '```json\n["{0}", "{1}", "{2}"]\n```',
    "`{0}`, `{1}`, and `{2}`",
    "\\boxed{{{0}, {1}, {2}}}",
    "The {noun}s for {key} are {0}, {1}, and {2}.",
    "The {noun}s are: {0}, {1}, {2}",
    "The {noun}s are:\n\n1. {0}\n2. {1}\n3. {2}",
    "The three {noun}s are {0}, {1} and {2}.",
    "The 3 {noun}s are {0}, {1} and {2}.",
    "Certainly! The {noun}s for {key} are {0}, {1} and {2}.",
    "Certainly! Here are the {noun}s for {key}:\n\n1. **{0}**\n2. **{1}**\n3. **{2}**",
    "Based on the text, the {noun}s for {key} are:\n- {0}\n- {1}\n- {2}",
    "According to the passage, the {noun}s are {0}, {1}, and {2}.",
    "Answer: {0}, {1}, {2}",
    "Answer:{0},{1},{2}",
    "{0} [1], {1} [2], {2} [3]",
    "答案是{0}、{1}和{2}。",
    "{0}; {1}; {2}",
    "{0} | {1} | {2}",
    "{0} and {1} and {2}",
    "{0}, {1}, as well as {2}",
    "<think>{2}, {1} ...</think>{0}, {1}, {2}",
    "One {noun} is {0}, another is {1}, and the third is {2}.",
    "The first {noun} is {0}. The second {noun} is {1}. The third {noun} is {2}.",
)


def several_answers(name: str, seeds: int = 4) -> Iterator[tuple[Case, str]]:
    """Questions that ask for three values, each with a template."""
    for seed in range(seeds):
        question = asked(name, seed)
        gold = (question.gold, *question.rivals[:2])
        noun, key = question.format.noun, question.key
        text = f" What are all the {noun}s for {key}? The {noun}s for {key} are"
        for template in SEVERAL:
            answer = template.format(*gold, noun=noun, key=key)
            yield (
                Case(
                    answer,
                    gold,
                    question.format.answer_format,
                    in_order=bool(seed % 2),
                    rivals=question.rivals[2:],
                    question=text,
                ),
                template,
            )
