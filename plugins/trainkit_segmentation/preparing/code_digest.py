"""A digest of what code computes. Comments, docstrings, annotations and the wording of errors do not change it."""

from __future__ import annotations

import ast

from xxhash import xxh3_128_hexdigest

_SAYS_NOTHING = ("annotation", "returns", "type_comment", "type_params", "ctx", "kind")


def code_digest(*sources: str) -> str:
    """Return a digest of the syntax trees of source files, without docstrings, annotations and ``raise`` statements.

    What a function raises does not change what it returns, so the wording of errors is left out.
    """
    return xxh3_128_hexdigest("\0".join(" ".join(_words(ast.parse(source))) for source in sources).encode())


def _words(tree: ast.AST) -> list[str]:
    """Return a tree as words. Empty fields are left out, since which fields exist depends on the version of Python."""
    words: list[str] = []

    def add(node: object) -> None:
        if isinstance(node, ast.Raise):
            words.append("raise")
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                add(ast.Assign([node.target], node.value))
        elif isinstance(node, ast.AST):
            words.append(f"({type(node).__name__}")
            for name, value in ast.iter_fields(node):
                if name not in _SAYS_NOTHING and value is not None and value != []:
                    words.append(name)
                    add(value)
            words.append(")")
        elif isinstance(node, list):
            for each in node:
                if not _is_docstring(each):
                    add(each)
        else:
            words.append(repr(node))

    add(tree)
    return words


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
