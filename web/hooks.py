"""Hooks of MkDocs: pages from the sources, the command's help and the notebooks; mathematics as MathML."""

from __future__ import annotations

import ast
import base64
import html
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "capsnet"
BUILT = ROOT / "build"
#: Folders of the package with public names, in the order of the package's docstring.
ROOMS = (
    "routing", "convolution", "data", "layers", "models", "explain", "inference", "training", "report", "explorer",
    "benchmark", "experiments",
)  # fmt: skip
#: Modules with public names that no folder's `__all__` has.
MODULES = (
    "functional",
    "inference.evaluation",
    "inference.export",
    "inference.prediction",
    "training.fit",
    "training.estimator",
    "training.run",
)
#: What a page says of a variant or a claim without records.
NOT_RUN = "not run yet"
_MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the reference pages."""
    pages = dict(reference())
    pages["reference/command-line.md"] = command_line()
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "tutorial/results.json", content=results()))
    measured = BUILT / "measured.json"
    if measured.exists():
        files.append(File.generated(config, "tutorial/measured.json", content=measured.read_text("utf-8")))
    notebooks = sorted((BUILT / "notebooks").glob("*.ipynb"))
    for notebook in notebooks:
        for name, content in notebook_files(notebook).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    if notebooks:
        config.nav.append({"Notebooks": [f"notebooks/{notebook.stem}.md" for notebook in notebooks]})
    names = [{Path(name).stem.replace("-", " "): name} for name in pages]
    config.nav.append({"Reference": [{"command line": "reference/command-line.md"}, *names[:-1]]})
    return files


def notebook_files(path: Path) -> dict[str, str | bytes]:
    """Return an executed notebook as a page in Markdown, its figures, and itself to download."""
    content = path.read_text(encoding="utf-8")
    files: dict[str, str | bytes] = {path.name: content}
    parts = []
    for cell in json.loads(content)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            if len(parts) == 1:
                parts.append(
                    f"[Download this notebook]({path.name}){{download={path.name}}}. "
                    "Its outputs were computed for this site."
                )
            continue
        language = "bash" if source.startswith("%%bash") else "python"
        parts.append(f"```{language}\n{source.removeprefix('%%bash').strip()}\n```")
        printed = "".join(line for output in cell["outputs"] for line in output.get("text", []))
        if printed:
            parts.append(f"```{{.text .printed}}\n{printed.rstrip()}\n```")
        for data in (output["data"] for output in cell["outputs"] if "data" in output):
            if "image/png" in data:
                name = f"{path.stem}-{len(files)}.png"
                files[name] = base64.b64decode(data["image/png"])
                parts.append(f"![{cell['metadata']['alt']}]({name})")
            elif "text/html" in data:
                parts.append("".join(data["text/html"]))
            else:
                parts.append(f"```{{.text .printed}}\n{''.join(data['text/plain'])}\n```")
    files[f"{path.stem}.md"] = "\n\n".join(parts) + "\n"
    return files


def on_page_markdown(text: str, **_: Any) -> str:
    """Replace what a page takes from the sources and the records.

    `{{code MODULE NAME}}` is the source of a function or class; `{{value EXPERIMENT VARIANT MEASURE}}` a mean over the
    seeds; `{{word EXPERIMENT OURS AGAINST MEASURE}}` the verdict on a claim; `{{counts}}` the verdicts of all claims.
    """
    parts = {"code": _code, "value": _value, "word": _word, "counts": _counts}
    return re.sub(r"\{\{(\w+)([^}]*)\}\}", lambda match: parts[match[1]](*match[2].split()), text)


@cache
def _quick() -> dict[str, Any]:
    """Return the records of each experiment at the quick scale."""
    from capsnet.experiments.record import read_records
    from capsnet.experiments.record_groups import groups

    found = groups(read_records(ROOT / "results"))
    return {group.experiment.name: group for group in found if group.scale == "quick" and not group.label}


def _value(experiment: str, variant: str, measure: str) -> str:
    from capsnet.experiments.findings import mean_of

    group = _quick()[experiment]
    (about,) = (one for one in group.experiment.measures if one.key == measure.replace("_", " "))
    return mean_of(group, variant, about) if group.of(variant) else NOT_RUN


def _word(experiment: str, ours: str, against: str, measure: str) -> str:
    from capsnet.experiments.findings import WORDS
    from capsnet.experiments.verdicts import judgements

    claims = (
        (one.claim.ours, one.claim.against, one.claim.measure, one)
        for one in judgements(_quick()[experiment])
    )
    wanted = [ours, against, measure.replace("_", " ")]  # a name with a space has "_" on a page
    found = [one for *claim, one in claims if claim == wanted]
    return WORDS[found[0].word.partition(",")[0]] if found else NOT_RUN


def _counts() -> str:
    from capsnet.experiments.findings import counted
    from capsnet.experiments.verdicts import judgements

    return counted([one for group in _quick().values() for one in judgements(group)])


def _code(module: str, name: str) -> str:
    path = PACKAGE / (module.replace(".", "/") + ".py")
    source = path.read_text(encoding="utf-8")
    (found,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name
    )
    first = found.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    head = source.splitlines()[found.lineno - 1 : first.lineno - 1]
    body = source.splitlines()[(first.end_lineno or 0) if documented else first.lineno - 1 : found.end_lineno]
    return (
        f'```python title="src/capsnet/{path.relative_to(PACKAGE)}"\n' + "\n".join([*head, *body]) + "\n```"
    )


def on_page_content(content: str, **_: Any) -> str:
    """Convert mathematics to MathML, which browsers draw without scripts."""
    return _MATHS.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match[2] == "[" else "inline"
    formula = str(convert(html.unescape(match[3]).strip(), display=display))
    # A wide formula scrolls, by keyboard too.
    return formula.replace("<math ", '<math tabindex="0" ', 1) if display == "block" else formula


def on_post_page(output: str, **_: Any) -> str:
    """Name the theme's search dialog."""
    return output.replace(
        'data-md-component="search" role="dialog"',
        'data-md-component="search" role="dialog" aria-label="Search"',
    )


def reference() -> Iterator[tuple[str, str]]:
    """Return the reference pages: file name and Markdown."""
    names = [f"- [`capsnet.{name}`][{home}.{name}]" for name, home in homes().items()]
    # A name whose module has no page of its own is described here.
    paged = {f"capsnet.{part}" for part in (*MODULES, *ROOMS)}
    here = "\n\n".join(f"::: {home}.{name}" for name, home in homes().items() if home not in paged)
    yield "reference/capsnet.md", "\n".join(["# capsnet", "", *names, "", here, ""])
    for module in MODULES:
        path = f"capsnet.{module}"
        yield f"reference/{path}.md", _page(path, [f"{path}.{name}" for name in defined(module)])
    for room in ROOMS:
        names = exported(PACKAGE / room / "__init__.py")
        if names:
            yield (
                f"reference/capsnet.{room}.md",
                _page(f"capsnet.{room}", [f"capsnet.{room}.{n}" for n in names]),
            )


def _page(title: str, names: list[str]) -> str:
    return f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in names) + "\n"


def _assigned(path: Path, name: str) -> ast.expr | None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return node.value
    return None


def homes() -> dict[str, str]:
    """Return the public names of `capsnet` and the modules that define them."""
    value = _assigned(PACKAGE / "__init__.py", "_HOMES")
    assert value is not None
    found: dict[str, str] = ast.literal_eval(value)
    return found


def exported(path: Path) -> list[str]:
    """Return the `__all__` of a module; empty without one."""
    value = _assigned(path, "__all__")
    return [] if value is None else list(ast.literal_eval(value))


def defined(module: str) -> list[str]:
    """Return the public functions and classes that a module defines."""
    path = PACKAGE / (module.replace(".", "/") + ".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [
        n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")
    ]


def results() -> str:
    """Return the comparisons of docs/results.md with the value of every seed, from the records in results/."""
    from capsnet.experiments.findings import QUESTIONS, WORDS
    from capsnet.experiments.verdicts import judgements

    found = _quick()
    judged = {name: judgements(group) for name, group in found.items()}
    questions = []
    for question in QUESTIONS:
        comparisons = []
        for one in question.comparisons:
            for judgement in judged.get(one.experiment, ()):
                if one.matches(judgement):
                    comparisons.append(_comparison(one, judgement, found[one.experiment], WORDS))
        questions.append({"text": question.text, "measured": question.measured, "comparisons": comparisons})
    return json.dumps(questions)


def _comparison(one: Any, judgement: Any, group: Any, words: dict[str, str]) -> dict[str, Any]:
    measure = judgement.measure
    sides = [
        {
            "name": name,
            "unit": " %" if measure.percent else "",
            "values": [(100 if measure.percent else 1) * r.value(measure.key) for r in group.of(variant)],
        }
        for name, variant in ((one.ours_named, one.ours), (one.against_named, one.against))
    ]
    return {
        "where": one.where,
        "sides": sides,
        "word": words[judgement.word.partition(",")[0]],
        "line": judgement.line.removeprefix("- ").replace("*", ""),
        "better": measure.better,
    }


def command_line() -> str:
    """Return the page of all commands, from their own help."""
    import typer
    from typer.main import get_command

    import capsnet.cli  # noqa: F401  registers the commands
    from capsnet.cli.app import app

    lines = ["# Command line", ""]
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        context = typer.Context(command, info_name=f"capsnet {name}")
        records = [parameter.get_help_record(context) for parameter in command.params]
        rows = [" | ".join(_cell(part) for part in record) for record in records if record]
        lines += [
            f"## capsnet {name}",
            "",
            command.help or "",
            "",
            "| argument or option | meaning |",
            "|---|---|",
        ]
        lines += [f"| {row} |" for row in rows] + [""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return html.escape(" ".join(text.split())).replace("|", "\\|")
