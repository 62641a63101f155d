#!/usr/bin/env python3
"""Write the reference out of the code: a README for every role, docs/modules.md and docs/playbooks.md.

python tools/reference.py           writes what is out of date
python tools/reference.py --check   only names it, and fails if there is any
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parent.parent
GENERATED = "<!-- Written by tools/reference.py; change the source and run `make reference`. -->"
#: Ansible's markup for options, values, files and other modules.
MARKUP = re.compile(r"\b(RV|[OVCIBRMEP])\(([^()]*(?:\([^()]*\))?[^()]*)\)")


def plain(text: Any) -> str:
    """Text of a description as Markdown: paragraphs joined, markup turned into code."""
    paragraphs = text if isinstance(text, list) else [text]
    joined = " ".join(" ".join(str(paragraph).split()) for paragraph in paragraphs if paragraph)
    return MARKUP.sub(lambda match: f"`{re.split('[,#]', match.group(2))[0].removeprefix('roastify.ops.')}`", joined)


def cell(value: Any) -> str:
    """A value in a table of Markdown."""
    if value is None or value == "":
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return "`" + " ".join(text.replace("|", "\\|").split()) + "`"


def options_table(options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of options: name, type, default, meaning."""
    lines = ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, option in options.items():
        default = "**required**" if option.get("required") else cell(option.get("default"))
        kind = option.get("type", "str")
        choices = option.get("choices")
        meaning = plain(option.get("description", ""))
        if choices:
            meaning += f" One of {', '.join(cell(str(choice)) for choice in choices)}."
        lines.append(f"| `{name}` | {kind} | {default} | {meaning.replace('|', '&#124;')} |")
    return lines


def role_readme(role: Path) -> str:
    """README of a role, from its argument specification."""
    entries = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    main = entries["main"]
    lines = [GENERATED, "", f"# roastify.ops.{role.name}", "", f"{plain(main['short_description'])}.", ""]
    lines += [plain(main["description"]), ""]
    others = {name: entry for name, entry in entries.items() if name != "main"}
    if others:
        lines += ["| also | what it does |", "| --- | --- |"]
        lines += [f"| `tasks_from: {name}` | {plain(entry['short_description'])} |" for name, entry in others.items()]
        lines.append("")
    merged: dict[str, Any] = {}
    for entry in entries.values():
        merged.update(entry.get("options") or {})
    lines += ["## Variables", "", *options_table(merged)]
    return "\n".join(lines) + "\n"


def documentation(module: Path) -> dict[str, Any]:
    """The DOCUMENTATION block of a module or plugin."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION":
            content = yaml.safe_load(ast.literal_eval(node.value))
            return dict(content)
    raise ValueError(f"{module} has no DOCUMENTATION")


def modules_page() -> str:
    """Every module, filter and lookup in a line, with where to read on."""
    lines = [GENERATED, "", "# Modules, filters and lookups", ""]
    lines += ["`ansible-doc roastify.ops.NAME` shows options, examples and results.", ""]
    lines += ["| module | what it does |", "| --- | --- |"]
    lines += _plugin_lines("modules")
    lines += ["", "| filter | what it does |", "| --- | --- |"]
    lines += _plugin_lines("filter")
    lines += ["", "| lookup | what it does |", "| --- | --- |"]
    lines += _plugin_lines("lookup")
    return "\n".join(lines) + "\n"


def _plugin_lines(kind: str) -> Iterator[str]:
    for path in sorted((CHECKOUT / "plugins" / kind).glob("*.py")):
        content = documentation(path)
        description = content["description"]
        first = description[0] if isinstance(description, list) else description
        yield f'| <a id="{path.stem}"></a>`{path.stem}` | {plain(content["short_description"])}. {plain(first)} |'


def playbooks_page() -> str:
    """What every playbook says of itself at its top."""
    lines = [GENERATED, "", "# Playbooks", ""]
    for path in sorted((CHECKOUT / "playbooks").glob("*.yml")):
        comment = []
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            if not line.startswith("#"):
                break
            comment.append(line.removeprefix("#").removeprefix(" "))
        lines += [f"## {path.stem}", "", *_code_blocks(comment), ""]
    return "\n".join(lines).rstrip() + "\n"


def _code_blocks(comment: Sequence[str]) -> list[str]:
    """Indented lines of a comment are commands."""
    lines: list[str] = []
    inside = False
    for line in comment:
        command = line.startswith("  ")
        if command != inside:
            lines.append("```sh" if command else "```")
            inside = command
        lines.append(line[2:] if command else line)
    return [*lines, "```"] if inside else lines


def pages() -> dict[Path, str]:
    """Every generated file and what it should say."""
    wanted = {role / "README.md": role_readme(role) for role in sorted((CHECKOUT / "roles").iterdir()) if role.is_dir()}
    wanted[CHECKOUT / "docs" / "modules.md"] = modules_page()
    wanted[CHECKOUT / "docs" / "playbooks.md"] = playbooks_page()
    return wanted


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only name what is out of date")
    check = parser.parse_args(arguments).check
    stale = {path: text for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        print(f"{'out of date' if check else 'wrote'}: {path.relative_to(CHECKOUT)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
