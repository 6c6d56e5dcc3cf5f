"""Finding what was altered behind the tree's back: a node looks before it takes part again."""

from gridpool.ledger.tree import difference, update
from gridpool.ledger.view import View, walking_the_tree

__all__ = ["altered_keys"]


def altered_keys(view: View) -> list[bytes]:
    """Return the full keys whose stored value or tree node is not what the last header's state root commits to.

    Rehashes every stored leaf (about 10 us each) and, only where the root differs, walks both trees down to the keys.
    A store whose tree was altered as well differs in its root from the header; then every key below is suspect.
    Raises RefusedInput where its nodes cannot even be read.
    """
    pairs: dict[bytes, bytes | None] = dict(view.snapshot.items("state"))
    root, nodes = update(lambda _: None, pairs)
    if root == view.header(view.height).header.state_root:
        return []
    with walking_the_tree():
        return sorted(difference(nodes.get, view.snapshot.node))
