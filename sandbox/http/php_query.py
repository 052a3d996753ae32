"""Parses and builds PHP query strings such as `filter[updated_at][from]=1` (API section 1.8).

A parsed query is a tree of dicts with string leaves, as PHP's `$_GET` would hold it. `filter[id][]=5` gets
the next free index; brackets may be raw or percent-encoded.
"""

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote_plus

Tree = dict[str, "Tree | str"]
Node = Tree | str | None
_BRACKETS = re.compile(r"\[([^\]]*)\]")


def parse(raw: str) -> Tree:
    """Parses a query string or form body into PHP's nested array."""
    tree: Tree = {}
    for key, value in parse_qsl(raw, keep_blank_values=True):
        head, _, rest = key.partition("[")
        steps = [head, *_BRACKETS.findall("[" + rest)] if rest else [head]
        _insert(tree, steps, value)
    return tree


def _insert(tree: Tree, steps: list[str], value: str) -> None:
    for step in steps[:-1]:
        step = step or _free_index(tree)
        child = tree.get(step)
        if not isinstance(child, dict):
            child = tree[step] = {}
        tree = child
    tree[steps[-1] or _free_index(tree)] = value


def _free_index(tree: Tree) -> str:
    return str(max((int(key) for key in tree if key.isdigit()), default=-1) + 1)


def build(tree: Tree) -> str:
    """Builds a query string as PHP's `http_build_query` does: brackets percent-encoded, indexes explicit."""
    return "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in _flattened(tree, ""))


def _flattened(tree: Tree, prefix: str) -> Iterator[tuple[str, str]]:
    for key, node in tree.items():
        name = f"{prefix}[{key}]" if prefix else key
        if isinstance(node, dict):
            yield from _flattened(node, name)
        else:
            yield name, node


def items(node: Node) -> list[str]:
    """Returns a scalar, an array of scalars or None as a list of strings; csv is not split."""
    if node is None:
        return []
    if isinstance(node, str):
        return [node]
    return [value for value in node.values() if isinstance(value, str)]


def subtree(node: Node) -> Tree:
    """Returns the node if it is an array, else an empty one."""
    return node if isinstance(node, dict) else {}


def scalar(node: Node, default: str = "") -> str:
    """Returns the node if it is a scalar, else the default."""
    return node if isinstance(node, str) else default


def integer(node: Node) -> int | None:
    """Returns the node as an integer, None if it is not one."""
    try:
        return int(scalar(node))
    except ValueError:
        return None
