"""Signals: who won, by how much, with what weight; one sidecar row a pair. numpy and pyarrow; no torch."""
