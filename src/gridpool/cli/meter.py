"""``gridpool meter``: submit signed meter readings."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gridpool.cli.output import emit

__all__ = ["app"]

app = App(name="meter", help="Submit signed meter readings.")


@app.command
def submit(
    readings: Path,
    /,
    *,
    wallet: Path,
    number: int | None = None,
    home: Path | None = None,
    url: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Sign a file of readings with the wallet's key and submit it; all of it is taken, or none.

    Example: ``gridpool meter submit readings.csv --wallet ann.wallet --home out/home``

    Parameters
    ----------
    readings
        CSV with columns interval,import_wh,export_wh and, if wanted, quality (measured, estimated, corrected).
    wallet
        Wallet file that holds the meter's key.
    number
        Which of the member's wallets the meter settles to; by default its first.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import read_readings, readings_calls
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session, signer_of

    read = read_readings(readings)
    keys = load_wallet(wallet)
    with open_session(home, url) as session:
        key = signer_of(session, keys, number)
        receipt = session.submit(key, *readings_calls(read))
    emit(
        {
            "tx": receipt.tx.hex(),
            "wallet": key.public.hex(),
            "readings": len(read),
            "import_wh": sum(reading.import_wh for reading in read),
            "export_wh": sum(reading.export_wh for reading in read),
        },
        json=json,
    )
