"""Run every ```sh block of a Markdown file, in order, in one shell each; stop at the first failure.

Blocks in other languages (```console, ```text, ```yaml) are shown to readers and not run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path


def blocks(markdown: str) -> list[str]:
    """The contents of the fenced blocks whose language is exactly `sh`."""
    return re.findall(r"^```sh\n(.*?)^```$", markdown, flags=re.DOTALL | re.MULTILINE)


def main(path: Path) -> int:
    found = blocks(path.read_text(encoding="utf-8"))
    if not found:
        print(f"{path}: no ```sh block found", file=sys.stderr)
        return 1
    env = os.environ | {"PATH": f"{Path('.venv/bin').resolve()}{os.pathsep}{os.environ['PATH']}"}
    for block in found:
        print(block, flush=True)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], env=env, check=False)
        if done.returncode:
            print(f"{path}: this block ended with {done.returncode}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
