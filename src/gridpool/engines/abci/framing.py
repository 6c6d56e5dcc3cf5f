"""Length-prefixed messages on a stream, as CometBFT's socket protocol has them: a varint, then that many bytes."""

__all__ = ["MAX_MESSAGE_BYTES", "Deframer", "FramingError", "frame", "varint"]

MAX_MESSAGE_BYTES = 100 << 20
"""CometBFT's own limit on a message."""
MAX_VARINT_BYTES = 10


class FramingError(ValueError):
    """The stream does not hold length-prefixed messages; the connection must end."""


def varint(number: int) -> bytes:
    """Return a whole number as protobuf writes it: seven bits a byte, the lowest first."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def frame(message: bytes) -> bytes:
    """Return a message with its length before it."""
    return varint(len(message)) + message


class Deframer:
    """Cuts a stream into messages, however its bytes arrive."""

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        """Refuse messages of more than ``limit`` bytes before their bytes are read."""
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in; returns the messages they complete. Raises FramingError."""
        # Most reads begin and end with whole messages; those are cut from the bytes as they came.
        stream: bytes | bytearray = data
        if self._rest:
            self._rest += data
            stream = self._rest
        messages = []
        position, end = 0, len(stream)
        while position < end:
            length, start = stream[position], position + 1
            if length >= 0x80:
                header = self._length(stream, position)
                if header is None:
                    break
                length, start = header
            elif length > self._limit:
                raise self._too_long(length)
            if end - start < length:
                break
            position = start + length
            messages.append(bytes(stream[start:position]))
        if stream is self._rest:
            del self._rest[:position]
        else:
            self._rest += data[position:]
        return messages

    def _length(self, stream: bytes | bytearray, position: int) -> tuple[int, int] | None:
        """Return (length, first byte of the message), or None where the varint is not complete."""
        value = shift = 0
        for count, byte in enumerate(stream[position : position + MAX_VARINT_BYTES]):
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if value > self._limit:
                    raise self._too_long(value)
                return value, position + count + 1
        if len(stream) - position >= MAX_VARINT_BYTES:
            raise FramingError(f"a length takes at most {MAX_VARINT_BYTES} bytes")
        return None

    def _too_long(self, length: int) -> FramingError:
        return FramingError(f"a message of {length} bytes is announced, at most {self._limit} are allowed")
