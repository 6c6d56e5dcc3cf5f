"""Ed25519 and MessagePack written out plainly after RFC 8032 and the MessagePack specification: a test oracle."""

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)

Point = tuple[int, int]
ZERO: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + k, P - 2, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, P - 2, P) % P


def times(n: int, a: Point) -> Point:
    total = ZERO
    while n:
        if n & 1:
            total = add(total, a)
        a = add(a, a)
        n >>= 1
    return total


def with_y(y: int, sign: int) -> Point | None:
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P:
        return None
    return (P - x if x % 2 != sign else x), y % P


BASE = with_y(4 * pow(5, P - 2, P) % P, 0) or ZERO


def encode(a: Point) -> bytes:
    return (a[1] | (a[0] & 1) << 255).to_bytes(32, "little")


def scalar(data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(data).digest(), "little") % L


def secret(seed: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(seed).digest()
    a = int.from_bytes(digest[:32], "little") & ~7 & ((1 << 254) - 1) | 1 << 254
    return a, digest[32:]


def public(seed: bytes) -> bytes:
    return encode(times(secret(seed)[0], BASE))


def sign(seed: bytes, message: bytes) -> bytes:
    a, prefix = secret(seed)
    r = scalar(prefix + message)
    start = encode(times(r, BASE))
    s = (r + scalar(start + public(seed) + message) * a) % L
    return start + s.to_bytes(32, "little")


def torsion() -> list[Point]:
    """The eight points whose order divides 8."""
    y = 2
    while True:
        found = with_y(y, 0)
        y += 1
        if found is None:
            continue
        point = times(L, found)
        if times(4, point) != ZERO:
            return [times(i, point) for i in range(8)]


def pack(value: object) -> bytes:
    if isinstance(value, int):
        for size, code in ((1, 0xCC), (2, 0xCD), (4, 0xCE), (8, 0xCF)):
            if value < 128:
                return bytes([value])
            if value < 1 << 8 * size:
                return bytes([code]) + value.to_bytes(size, "big")
    if isinstance(value, str):
        data = value.encode()
        head = bytes([0xA0 | len(data)]) if len(data) < 32 else bytes([0xD9, len(data)])
        return head + data
    if isinstance(value, bytes):
        return bytes([0xC4, len(value)]) + value
    assert isinstance(value, list)
    assert len(value) < 16
    return bytes([0x90 | len(value)]) + b"".join(pack(item) for item in value)
