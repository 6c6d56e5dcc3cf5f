"""Length-prefixed messages on a stream, as CometBFT's socket protocol has them: a varint, then that many bytes."""

__all__ = ["MAX_MESSAGE_BYTES", "Deframer", "FramingError", "frame"]

MAX_MESSAGE_BYTES = 100 << 20
"""CometBFT's own limit on a message."""
MAX_VARINT_BYTES = 10


class FramingError(ValueError):
    """The stream does not hold length-prefixed messages; the connection must end."""


def frame(message: bytes) -> bytes:
    """Return a message with its length before it."""
    length = len(message)
    prefix = bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + message


class Deframer:
    """Cuts a stream into messages, however its bytes arrive."""

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        """Refuse messages of more than ``limit`` bytes before their bytes are read."""
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in; returns the messages they complete. Raises FramingError."""
        self._buffer += data
        messages = []
        position = 0
        while (header := self._length(position)) is not None:
            length, start = header
            if len(self._buffer) - start < length:
                break
            messages.append(bytes(self._buffer[start : start + length]))
            position = start + length
        del self._buffer[:position]
        return messages

    def _length(self, position: int) -> tuple[int, int] | None:
        """Return (length, first byte of the message), or None where the varint is not complete."""
        value = shift = 0
        for count, byte in enumerate(self._buffer[position : position + MAX_VARINT_BYTES]):
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if value > self._limit:
                    raise FramingError(f"a message of {value} bytes is announced, at most {self._limit} are allowed")
                return value, position + count + 1
        if len(self._buffer) - position >= MAX_VARINT_BYTES:
            raise FramingError(f"a length takes at most {MAX_VARINT_BYTES} bytes")
        return None
