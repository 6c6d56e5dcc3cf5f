"""Orders in a CSV file: read whole or refused whole."""

import csv
import io
import re
from pathlib import Path

from gridpool.errors import RefusedInput
from gridpool.markets.orders import INTEGER_LIMIT, Order, check_orders

__all__ = ["read_orders"]

COLUMNS = ("id", "side", "quantity_wh", "price", "owner")
MAX_BYTES = 256 * 2**20
MAX_NAME = 128
INTEGER = re.compile(r"-?[0-9]{1,30}")


def read_orders(path: Path) -> list[Order]:
    """Read orders, in order of arrival, from a CSV file with columns id, side, quantity_wh, price, owner[, area].

    ``side`` is buy or sell, quantities are integer Wh, prices integer micro-coins per kWh.

    Raises RefusedInput naming the line of the first row that does not fit, or the orders that ``check_orders`` refuses.
    """
    rows = _rows(path)
    header = rows[0] if rows else []
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise RefusedInput(f"{path}: no column {', '.join(missing)}; the first line must name {','.join(COLUMNS)}")
    unknown = [column for column in header if column not in (*COLUMNS, "area")]
    if unknown or len(set(header)) != len(header):
        raise RefusedInput(f"{path}: line 1 names {','.join(header)}; the columns are {','.join(COLUMNS)} and area")
    at = {column: index for index, column in enumerate(header)}
    orders = []
    for number, row in enumerate(rows[1:], start=2):
        where = f"{path}: row {number}"
        if len(row) != len(header):
            raise RefusedInput(f"{where} has {len(row)} fields; the header has {len(header)}")
        side = row[at["side"]]
        if side not in ("buy", "sell"):
            raise RefusedInput(f"{where}: side is {side[:MAX_NAME]!r}; give buy or sell")
        area = row[at["area"]] if "area" in at else ""
        orders.append(
            Order(
                id=_name(row[at["id"]], "id", where),
                side="buy" if side == "buy" else "sell",
                quantity_wh=_integer(row[at["quantity_wh"]], "quantity_wh", where, least=1),
                price=_integer(row[at["price"]], "price", where, least=0),
                owner=_name(row[at["owner"]], "owner", where),
                area=_name(area, "area", where) if area else "",
            )
        )
    try:
        check_orders(orders)
    except RefusedInput as error:
        raise RefusedInput(f"{path}: {error}") from None
    return orders


def _rows(path: Path) -> list[list[str]]:
    if path.stat().st_size > MAX_BYTES:
        raise RefusedInput(f"{path} has more than {MAX_BYTES >> 20} MiB; split it by area or interval")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except UnicodeDecodeError as error:
        raise RefusedInput(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise RefusedInput(f"{path} is not a CSV file: {error}") from error


def _name(text: str, column: str, where: str) -> str:
    if not text or len(text) > MAX_NAME or not text.isprintable():
        raise RefusedInput(f"{where}: {column} is {text[:MAX_NAME]!r}; give 1 to {MAX_NAME} printable characters")
    return text


def _integer(text: str, column: str, where: str, *, least: int) -> int:
    if not INTEGER.fullmatch(text):
        raise RefusedInput(f"{where}: {column} is {text[:MAX_NAME]!r}; give an integer")
    value = int(text)
    if not least <= value <= INTEGER_LIMIT:
        raise RefusedInput(f"{where}: {column} is {value}; give {least} to 2^63 - 1")
    return value
