"""What a room holds, with a line for each, read from its files: nothing is imported.

It finds what ``registry`` finds, which imports torch with the files; a list must not wait for that.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import minicpt


def files(room: str) -> Iterator[tuple[str, ast.Module]]:
    """The public files of a room by their command-line names, in the order of the alphabet."""
    folder = Path(minicpt.__file__).parent / room
    for file in sorted(folder.glob("*.py")):
        if not file.stem.startswith("_"):
            yield file.stem.replace("_", "-"), ast.parse(file.read_text(encoding="utf-8"))


def classes(room: str, base: str) -> dict[str, str]:
    """The files that define a class derived from ``base``, with their first lines."""
    trees = dict(files(room))
    known, before = {base}, 0
    while len(known) > before:
        before = len(known)
        for tree in trees.values():
            known |= {each.name for each in defined(tree) if known & set(map(last, each.bases))}
    known.remove(base)
    return {
        name: line(tree)
        for name, tree in trees.items()
        if any(each.name in known for each in defined(tree))
    }


def constants(room: str, name: str) -> dict[str, object]:
    """The files that set ``name`` to a constant, with it."""
    return {
        file: node.value.value
        for file, tree in files(room)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and [last(each) for each in node.targets] == [name]
    }


def decorated(room: str, decorator: str) -> Iterator[tuple[str, list]]:
    """The functions under ``@decorator(...)`` with its constant arguments, in their order."""
    for _, tree in files(room):
        for node in tree.body:
            for call in getattr(node, "decorator_list", []):
                if isinstance(call, ast.Call) and last(call.func) == decorator:
                    given = [each.value for each in call.args if isinstance(each, ast.Constant)]
                    yield node.name.replace("_", "-"), given


def defined(tree: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in tree.body if isinstance(node, ast.ClassDef))


def last(node: ast.expr) -> str:
    """The name that an expression ends with: of ``nn.Module`` it is "Module"."""
    if isinstance(node, ast.Subscript):
        return last(node.value)
    return getattr(node, "id", getattr(node, "attr", ""))


def line(tree: ast.Module) -> str:
    """The first line of what a file says of itself."""
    return (ast.get_docstring(tree) or "").partition("\n")[0]
