"""What everyone agrees on: keys, transactions, state, tree, blocks, proofs, store."""
