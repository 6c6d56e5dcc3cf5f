"""The members' own software: wallets, devices, meters, orchestrators, aggregators."""
