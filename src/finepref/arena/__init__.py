"""The arena: votes -> ratings -> gaps -> leaderboard. numpy, scipy and pyarrow; no torch."""
