"""What a user can get wrong about models; each message is one line that says what is right.

ValueError
└── ModelError               a model, folder or option that cannot be used
    ├── NonFiniteError       a model that computes NaN or infinity
    ├── ServerError          a request that a server did not answer as asked
    ├── StopRunError         a model that will answer no further question
    └── UnknownModelError    a name that the registry does not know
"""

from __future__ import annotations


class ModelError(ValueError):
    """A model, folder or option that cannot be used."""


class UnknownModelError(ModelError):
    """A name that the registry does not know; the message lists those it does."""


class NonFiniteError(ModelError):
    """A model computed NaN or infinity after its `token`-th token, counted from 1."""

    def __init__(self, token: int) -> None:
        super().__init__(f"logits are not finite after token {token}")
        self.token = token

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[int]]:
        return type(self), (self.token,)


class ServerError(ModelError):
    """A server gave no answer that can be used: the question's row is an error."""


class StopRunError(ModelError):
    """No further question will be answered: the run ends, and the same command resumes it."""
