"""An encrypted channel between two devices that prove themselves to each other, over any stream of bytes.

Each side sends a fresh X25519 key and a nonce in clear; session keys follow by libsodium's ``crypto_kx``, and all that
follows is ``crypto_secretstream`` (XChaCha20-Poly1305). Inside, each side shows its credential and signs both hellos
with its wallet: whoever sits in between has other hellos on each side, so relayed signatures do not fit; whoever
listens learns not even the wallets.
"""

import os
import socket
from hashlib import sha256
from typing import Protocol

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError

from gridpool.agents.access_credential import MOST_BYTES, Credentials, Distrusted, Standing
from gridpool.ledger.keys import KeyPair, verify
from gridpool.ledger.types import encode

__all__ = ["Channel", "ConnectionCut", "SocketStream", "Stream", "open_channel"]

MAGIC = b"gpdev/1\0"
HELLO_BYTES = len(MAGIC) + 64
DOMAIN = b"gridpool/device/1\0"
MOST_FRAME = 1 << 20
HEADER_BYTES = bindings.crypto_secretstream_xchacha20poly1305_HEADERBYTES
EXTRA_BYTES = bindings.crypto_secretstream_xchacha20poly1305_ABYTES


class ConnectionCut(ConnectionError):
    """The other side is gone; what was received and signed until then stands."""


class Stream(Protocol):
    """Any two-way stream of bytes."""

    def read(self, count: int) -> bytes:
        """Return 1 to ``count`` bytes; nothing at the end."""

    def write(self, data: bytes) -> None:
        """Send all of ``data``."""


class SocketStream:
    """A connected socket as a stream."""

    def __init__(self, connection: socket.socket, *, timeout_s: float = 30.0) -> None:
        """Wait at most ``timeout_s`` for each piece."""
        connection.settimeout(timeout_s)
        self._socket = connection

    def read(self, count: int) -> bytes:
        """Return 1 to ``count`` bytes; nothing at the end."""
        try:
            return self._socket.recv(count)
        except OSError as error:
            raise ConnectionCut(f"the connection was cut: {error}") from None

    def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ConnectionCut(f"the connection was cut: {error}") from None


class _Proof(msgspec.Struct, array_like=True):
    wallet: bytes
    signature: bytes
    credential: bytes


class Channel:
    """Both ways of an encrypted stream, and who is at the other end (``peer``)."""

    peer: Standing

    def __init__(self, stream: Stream, receive_key: bytes, send_key: bytes) -> None:
        """Use ``open_channel``."""
        self._stream = stream
        self._push = bindings.crypto_secretstream_xchacha20poly1305_state()
        self._pull = bindings.crypto_secretstream_xchacha20poly1305_state()
        stream.write(bindings.crypto_secretstream_xchacha20poly1305_init_push(self._push, send_key))
        header = read_exactly(stream, HEADER_BYTES)
        bindings.crypto_secretstream_xchacha20poly1305_init_pull(self._pull, header, receive_key)

    def send(self, message: bytes) -> None:
        """Encrypt and send a message."""
        if len(message) > MOST_FRAME:
            raise Distrusted(f"a message has at most {MOST_FRAME} bytes")
        sealed = bindings.crypto_secretstream_xchacha20poly1305_push(self._push, message)
        self._stream.write(len(sealed).to_bytes(4, "big") + sealed)

    def receive(self) -> bytes:
        """Receive and decrypt the next message; raises Distrusted where it was altered, left out or repeated."""
        size = int.from_bytes(read_exactly(self._stream, 4), "big")
        if not EXTRA_BYTES <= size <= MOST_FRAME + EXTRA_BYTES:
            raise Distrusted("the other side sends a frame of an impossible size")
        sealed = read_exactly(self._stream, size)
        try:
            message, _ = bindings.crypto_secretstream_xchacha20poly1305_pull(self._pull, sealed)
        except (CryptoError, RuntimeError, ValueError):
            raise Distrusted("a message was altered, left out or repeated on the way") from None
        return message


def open_channel(
    stream: Stream,
    key: KeyPair,
    credential: bytes,
    credentials: Credentials,
    *,
    client: bool,
    now_ms: int,
    max_age_ms: int,
) -> Channel:
    """Open a channel as client or server; both prove themselves, the server first.

    Raises Distrusted where the other side does not prove a registered, unrevoked wallet by a header of at most
    ``max_age_ms``, and ConnectionCut.
    """
    public, secret = bindings.crypto_kx_keypair()
    mine = MAGIC + public + os.urandom(32)
    stream.write(mine)
    theirs = read_exactly(stream, HELLO_BYTES)
    if not theirs.startswith(MAGIC):
        raise Distrusted("the other side is no gridpool device")
    other = theirs[len(MAGIC) : len(MAGIC) + 32]
    keys = bindings.crypto_kx_client_session_keys if client else bindings.crypto_kx_server_session_keys
    try:
        receive_key, send_key = keys(public, secret, other)
    except (CryptoError, RuntimeError, ValueError, TypeError):
        raise Distrusted("the other side's key is none that keys can be agreed with") from None
    channel = Channel(stream, receive_key, send_key)
    hellos = mine + theirs if client else theirs + mine
    transcript = sha256(DOMAIN + encode(credentials.chain) + hellos).digest()
    proof = encode((key.public, key.sign(_statement(client, transcript, credential)), credential))
    if not client:
        channel.send(proof)
    channel.peer = _check_proof(channel.receive(), not client, transcript, key.public, credentials, now_ms, max_age_ms)
    if client:
        channel.send(proof)
    return channel


def read_exactly(stream: Stream, count: int) -> bytes:
    """Read ``count`` bytes; raises ConnectionCut where the stream ends before."""
    pieces = []
    while count:
        piece = stream.read(min(count, 65_536))
        if not piece:
            raise ConnectionCut("the connection was cut")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _statement(client: bool, transcript: bytes, credential: bytes) -> bytes:
    return DOMAIN + (b"client" if client else b"server") + transcript + sha256(credential).digest()


def _check_proof(
    message: bytes,
    client: bool,
    transcript: bytes,
    own: bytes,
    credentials: Credentials,
    now_ms: int,
    max_age_ms: int,
) -> Standing:
    if len(message) > MOST_BYTES + 1_024:
        raise Distrusted("the other side's proof is too long")
    try:
        proof = msgspec.msgpack.decode(message, type=_Proof)
    except (ValueError, RecursionError) as error:
        raise Distrusted(f"the other side proves nothing: {error}") from None
    if proof.wallet == own:
        raise Distrusted("the other side shows this device's own wallet")
    if len(proof.signature) != 64 or len(proof.wallet) != 32:
        raise Distrusted("the other side proves nothing: its parts have the wrong length")
    if not verify(proof.wallet, proof.signature, _statement(client, transcript, proof.credential)):
        raise Distrusted("the other side has not signed this connection: somebody may sit in between")
    standing = credentials.check(proof.credential, proof.wallet)
    standing.check_now(now_ms, max_age_ms)
    return standing
