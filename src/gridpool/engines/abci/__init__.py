"""The ledger as a CometBFT application: ABCI 2.0 over a Unix socket."""
