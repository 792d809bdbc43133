"""What a user can get wrong about models; each message is one line that says what is right.

ValueError
└── ModelError               a model, folder or option that cannot be used
    └── UnknownModelError    a name that the registry does not know
"""


class ModelError(ValueError):
    """A model, folder or option that cannot be used."""


class UnknownModelError(ModelError):
    """A name that the registry does not know; the message lists those it does."""
