"""Who orders transactions: embedded, CometBFT, etcd."""
