"""The text that a tokenizer's chat template puts before and after what is read and asked."""

from collections.abc import Sequence
from typing import Any

PLACEHOLDER = "{haystack}"
"""Stands in a user's message for the haystack and its question."""


class TokenizerError(ValueError):
    """A tokenizer that does not exist or cannot do what is asked; the message says what can be."""


class ChatTemplate:
    """The chat template of a transformers tokenizer.

    `source`: the template as it is written (all of them, where a tokenizer has several).
    """

    def __init__(self, name: str, loaded: Any) -> None:
        written = loaded.chat_template
        self.source = "\n".join(written.values()) if isinstance(written, dict) else str(written)
        self._name = name
        self._loaded = loaded

    def texts(self, system: str, user: str, answer_prefix: str) -> tuple[str, str]:
        """The texts before and after `PLACEHOLDER`, which `user` holds once.

        The second one ends where the model's answer begins, after `answer_prefix`. Thinking is
        off where the template can turn it off. `system` may be empty; a template without a
        system's turn gets it at the beginning of the user's. A BOS that the template writes is
        part of the first text: compare with `Tokenizer.start_ids`, so as to plant it once.
        Raises TokenizerError where the template cannot take these messages.
        """
        if user.count(PLACEHOLDER) != 1:
            raise TokenizerError(f"tokenizer: the user's message {user!r} needs one {PLACEHOLDER}")
        asked = [{"role": "user", "content": user}]
        if system:
            try:
                rendered = self._render([{"role": "system", "content": system}, *asked])
            except TokenizerError:
                rendered = self._render([{"role": "user", "content": f"{system}\n\n{user}"}])
        else:
            rendered = self._render(asked)
        before, found, after = rendered.partition(PLACEHOLDER)
        if not found or PLACEHOLDER in after:
            raise TokenizerError(
                f"tokenizer: the chat template of {self._name!r} does not say the user's message "
                "exactly once"
            )
        return before, after + answer_prefix

    def after_answer(self) -> str:
        """What follows an assistant's answer: the end of its turn; empty if that is not known."""
        turns = [("user", "Say it."), ("assistant", PLACEHOLDER)]
        try:
            rendered = self._render([{"role": r, "content": c} for r, c in turns], answering=False)
        except TokenizerError:
            return ""
        return rendered.rpartition(PLACEHOLDER)[2]

    def _render(self, messages: Sequence[dict[str, str]], answering: bool = True) -> str:
        from jinja2.exceptions import TemplateError

        # Templates call the switch by either name, and ignore the one that they do not know.
        try:
            text = self._loaded.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=answering,
                enable_thinking=False,
                thinking=False,
            )
        except (TemplateError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise TokenizerError(
                f"tokenizer: the chat template of {self._name!r} cannot be used: {reason}"
            ) from None
        return str(text)
