"""`niah` with a model and a needle family more: `python -m examples.own COMMAND ...`."""

from examples.own.model import LastTokens
from examples.own.needle import Locker
from haystacks.needles.registry import FAMILIES
from models.registry import REGISTRY, Entry
from niah.cli.main import main

REGISTRY["last-tokens"] = Entry("nano-dense, its last tokens only", LastTokens)
FAMILIES["locker"] = Locker()

if __name__ == "__main__":
    main()
