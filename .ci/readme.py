"""Run every ```sh block of Markdown files, in order, in a shell each; stop at the first failure.

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


def main(paths: list[Path]) -> int:
    found = [(path, block) for path in paths for block in blocks(path.read_text(encoding="utf-8"))]
    if not found:
        print(f"no ```sh block in {', '.join(map(str, paths))}", file=sys.stderr)
        return 1
    env = os.environ | {"PATH": f"{Path('.venv/bin').resolve()}{os.pathsep}{os.environ['PATH']}"}
    for path, block in found:
        print(f"{path}:\n{block}", flush=True)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], env=env, check=False)
        if done.returncode:
            print(f"{path}: this block ended with {done.returncode}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main([Path(name) for name in sys.argv[1:]]))
