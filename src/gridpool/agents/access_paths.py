"""Proofs of many wallets under one header: what one proof has hashed up to the root, the next need not hash again.

The rules are those of ``ledger.light.check_state``, which stays the reference; here the parts arrive decoded, and the
upper nodes of the header's tree are kept once a proof has led from them to the root. A later proof then ends at the
first node that is known: with n wallets under a header, about log2 of n / (nodes kept) hashes instead of log2 n.
"""

from hashlib import sha256

import msgspec

from gridpool.ledger.compiled import native
from gridpool.ledger.light import EMPTY, Invalid

__all__ = ["OtherLeaf", "ProvedTree", "StateProof"]

KEPT_DEPTH = 12
"""Nodes are kept down to this depth: at most 8190 of a tree."""
FIRST_NOT_KEPT = 2 << KEPT_DEPTH
FAULTS = (
    "",
    "the siblings are not up to 256 hashes of 32 bytes",
    "the key names no table",
    "the other leaf is not another leaf",
    "the other leaf does not stand where the key would",
    "the path does not lead to the header's state root",
)
"""What the compiled check finds, by its number."""
BAD_SIBLINGS, NO_TABLE, NO_OTHER, OTHER_ELSEWHERE, OTHER_ROOT = FAULTS[1:]


class OtherLeaf(msgspec.Struct, gc=False):
    """The leaf that stands where an absent key would."""

    path: bytes
    value_hash: bytes


class StateProof(msgspec.Struct, gc=False, kw_only=True):
    """A proof of a key as a credential carries it, its base64 decoded; fields in the order that they are read in."""

    key: bytes
    value: bytes | None = None
    siblings: bytes
    other: OtherLeaf | None = None


class ProvedTree:
    """The state tree under one header's root, as far as proofs have shown it."""

    __slots__ = ("_nodes", "root")

    def __init__(self, root: bytes) -> None:
        self.root = root
        self._nodes: dict[int, bytes] = {}

    def __len__(self) -> int:
        """Return how many nodes are kept."""
        return len(self._nodes)

    def check(self, proof: StateProof) -> None:
        """Check that the key holds the proof's value (nothing where None) under the root; raises Invalid."""
        if native is None:
            self.plain_check(proof)
            return
        other = proof.other
        path, value_hash = (None, None) if other is None else (other.path, other.value_hash)
        fault = native.check_path(
            self._nodes, KEPT_DEPTH, self.root, proof.key, proof.siblings, proof.value, path, value_hash
        )
        if fault:
            raise Invalid(FAULTS[fault])

    def plain_check(self, proof: StateProof) -> None:
        """Do what ``check`` does, in Python: its definition and the oracle of its tests."""
        siblings = proof.siblings
        depth, rest = divmod(len(siblings), 32)
        if rest or depth > 256:
            raise Invalid(BAD_SIBLINGS)
        if b"\0" not in proof.key:
            raise Invalid(NO_TABLE)
        path = sha256(proof.key).digest()
        bits = int.from_bytes(path, "big")
        other = proof.other
        if proof.value is not None:
            digest = sha256(b"\0" + path + sha256(proof.value).digest()).digest()
        elif other is not None:
            if len(other.path) != 32 or len(other.value_hash) != 32 or other.path == path:
                raise Invalid(NO_OTHER)
            if (int.from_bytes(other.path, "big") ^ bits) >> (256 - depth):
                raise Invalid(OTHER_ELSEWHERE)
            digest = sha256(b"\0" + other.path + other.value_hash).digest()
        else:
            digest = EMPTY
        self._lead(digest, 1 << depth | bits >> (256 - depth), siblings)

    def _lead(self, digest: bytes, place: int, siblings: bytes) -> None:
        """Hash from a leaf up to the root, or to a node that led there before; then keep what was passed.

        ``place`` numbers the nodes as a heap does: the root is 1, below ``p`` stand ``2 p`` and ``2 p + 1``.
        """
        nodes = self._nodes
        passed = {}
        at = len(siblings)
        while place > 1:
            sibling = siblings[at - 32 : at]
            if place < FIRST_NOT_KEPT:
                known = nodes.get(place)
                if known is not None:
                    if known != digest:
                        raise Invalid(OTHER_ROOT)
                    break
                passed[place] = digest
                passed[place ^ 1] = sibling
            digest = sha256(b"\1" + sibling + digest if place & 1 else b"\1" + digest + sibling).digest()
            place >>= 1
            at -= 32
        else:
            if digest != self.root:
                raise Invalid(OTHER_ROOT)
        nodes.update(passed)
