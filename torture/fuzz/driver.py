"""Run a target in Atheris: `python -m torture.fuzz.driver TARGET FOLDER COUNT`.

libFuzzer ends the process: with exit code 0 after COUNT inputs. On a failure it prints the reason and writes the
input into FOLDER.
"""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

import atheris

#: Limits: seconds for one input, with coverage; megabytes in total, of which PyTorch needs about 400.
TIMEOUT = 60
MEMORY = 2048


def main() -> None:
    """Fuzz; this function does not return."""
    name, where, executions = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    # Import PyTorch and its dependencies (for example numba's caches) before coverage is counted.
    import torch

    torch.set_num_threads(1)
    corpus = _fresh(where / "corpus")
    with atheris.instrument_imports(include=["capsnet", "PIL"], enable_loader_override=False):
        from torture.fuzz.targets import targets

        target = targets()[name]
        check = target.prepare(_fresh(where / "files"))
        for number, content in enumerate(target.seeds()):
            (corpus / str(number)).write_bytes(content)
            check(content)
    options = [
        f"-runs={executions}",
        f"-timeout={TIMEOUT}",
        f"-rss_limit_mb={MEMORY}",
        f"-max_len={target.longest}",
        f"-artifact_prefix={where}/",
        "-print_final_stats=1",
    ]
    if found := target.words():
        words = where / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in found))
        options.append(f"-dict={words}")
    faulthandler.enable()
    atheris.Setup([sys.argv[0], *options, str(corpus)], check)
    atheris.Fuzz()


def _fresh(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _escaped(word: str) -> str:
    """Escape a word for libFuzzer's dictionary format."""
    return word.replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "__main__":
    main()
