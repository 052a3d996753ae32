"""PHP's query strings: `filter[updated_at][from]=1` in both directions (API section 1.8).

A parsed query is a tree of dicts with string leaves, as PHP's `$_GET` would hold it; `filter[id][]=5`
gets the next free index, brackets may come raw or percent-encoded.
"""

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote_plus

Tree = dict[str, "Tree | str"]
Node = Tree | str | None

_BRACKETS = re.compile(r"\[([^\]]*)\]")


def parse(raw: str) -> Tree:
    """The query string (or form body) as PHP's nested array."""
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
    """`http_build_query` of PHP: brackets percent-encoded, indexes spelled out."""
    return "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in _flat(tree, ""))


def _flat(tree: Tree, prefix: str) -> Iterator[tuple[str, str]]:
    for key, node in tree.items():
        name = f"{prefix}[{key}]" if prefix else key
        if isinstance(node, dict):
            yield from _flat(node, name)
        else:
            yield name, node


def items(node: Node) -> list[str]:
    """A scalar, a csv-free scalar list or nothing, as a list of strings."""
    if node is None:
        return []
    if isinstance(node, str):
        return [node]
    return [value for value in node.values() if isinstance(value, str)]


def branch(node: Node) -> Tree:
    """The node when it is an array, else an empty one."""
    return node if isinstance(node, dict) else {}


def text(node: Node, default: str = "") -> str:
    """The node when it is a scalar, else the default."""
    return node if isinstance(node, str) else default


def whole(node: Node) -> int | None:
    """The node as an integer, None when it is not one."""
    try:
        return int(text(node))
    except ValueError:
        return None
